# imgtk_add_format(NAME SOURCES... [CODEC]): one loadable module per format.
#
# NAME is the driver's name and the module's file name. CODEC links the
# compression code, which only the formats that compress should depend on.
# The objects are a target of their own, so that unit tests can link them.
function(imgtk_add_format name)
  cmake_parse_arguments(FORMAT "CODEC" "" "" ${ARGN})
  add_library(imgtk-format-${name}-objects OBJECT ${FORMAT_UNPARSED_ARGUMENTS})
  target_include_directories(imgtk-format-${name}-objects PUBLIC
    ${PROJECT_SOURCE_DIR}/core ${PROJECT_SOURCE_DIR}/core/include)
  target_compile_definitions(imgtk-format-${name}-objects PRIVATE IMGTK_VERSION="${PROJECT_VERSION}")

  add_library(imgtk-format-${name} MODULE)
  set_target_properties(imgtk-format-${name} PROPERTIES LINKER_LANGUAGE C
    PREFIX "" OUTPUT_NAME ${name} LIBRARY_OUTPUT_DIRECTORY ${IMGTK_MODULE_BUILD_DIR})
  target_link_libraries(imgtk-format-${name} PRIVATE imgtk-format-${name}-objects)
  if(FORMAT_CODEC)
    target_link_libraries(imgtk-format-${name} PRIVATE imgtk-codec)
  endif()
  target_link_libraries(imgtk-format-${name} PRIVATE imgtk Threads::Threads)
  install(TARGETS imgtk-format-${name} LIBRARY DESTINATION ${IMGTK_MODULE_DIR} COMPONENT format-${name})
endfunction()
