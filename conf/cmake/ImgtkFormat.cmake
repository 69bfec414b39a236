# imgtk_add_format(NAME SOURCES... [CODEC]): one loadable module per format.
#
# NAME is the driver's name and the module's file name. CODEC links the
# compression code, which only the formats that compress should depend on.
function(imgtk_add_format name)
  cmake_parse_arguments(FORMAT "CODEC" "" "" ${ARGN})
  add_library(imgtk-format-${name} MODULE ${FORMAT_UNPARSED_ARGUMENTS})
  set_target_properties(imgtk-format-${name} PROPERTIES
    PREFIX "" OUTPUT_NAME ${name} LIBRARY_OUTPUT_DIRECTORY ${IMGTK_MODULE_BUILD_DIR})
  target_include_directories(imgtk-format-${name} PRIVATE ${CMAKE_SOURCE_DIR}/core)
  target_link_libraries(imgtk-format-${name} PRIVATE imgtk Threads::Threads)
  target_compile_definitions(imgtk-format-${name} PRIVATE IMGTK_VERSION="${PROJECT_VERSION}")
  if(FORMAT_CODEC)
    target_link_libraries(imgtk-format-${name} PRIVATE imgtk-codec)
  endif()
  install(TARGETS imgtk-format-${name} LIBRARY DESTINATION ${IMGTK_MODULE_DIR} COMPONENT format-${name})
endfunction()
