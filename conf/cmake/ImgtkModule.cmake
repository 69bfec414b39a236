# imgtk_add_format(NAME SOURCES... [LIBRARIES TARGETS...] [CODEC]): a loadable module for a format.
# imgtk_add_storage(NAME SOURCES... [LIBRARIES TARGETS...]): one for a storage.
# imgtk_add_digest(NAME SOURCES... [LIBRARIES TARGETS...]): one for a digest, in the folder "digest".
#
# NAME is the name in the module's table and the module's file name. The target is imgtk-format-NAME, and so on; it is
# built in IMGTK_MODULE_BUILD_DIR (else in the folder that calls this) and installed in IMGTK_MODULE_DIR, where imgtk
# looks. The version that the module tells is its project's: IMGTK_VERSION in C.
#
# imgtk's own modules and those of others, by find_package(imgtk), are made by this file. CODEC and IMGTK_MODULE_INCLUDES
# are for the former: they link the compression code, which only the formats that compress should depend on, and add
# folders with headers. The objects are a target of their own, so that unit tests can link them.
function(imgtk_add_module kind name)
  cmake_parse_arguments(MODULE "CODEC" "FOLDER;COMPONENT" "LIBRARIES" ${ARGN})
  if(NOT MODULE_COMPONENT)
    set(MODULE_COMPONENT ${kind}-${name})
  endif()
  set(target imgtk-${kind}-${name})
  add_library(${target}-objects OBJECT ${MODULE_UNPARSED_ARGUMENTS})
  set_target_properties(${target}-objects PROPERTIES POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden)
  target_compile_definitions(${target}-objects PRIVATE IMGTK_VERSION="${PROJECT_VERSION}")
  # Not linked with the library itself: a unit test brings that along in pieces.
  target_include_directories(${target}-objects PUBLIC
    $<TARGET_PROPERTY:imgtk::imgtk,INTERFACE_INCLUDE_DIRECTORIES> ${IMGTK_MODULE_INCLUDES})
  target_link_libraries(${target}-objects PUBLIC ${MODULE_LIBRARIES})

  add_library(${target} MODULE)
  set_property(GLOBAL APPEND PROPERTY IMGTK_MODULES ${target})
  # No search path for libraries: libimgtk is loaded before any module, and each folder to look in takes time.
  set_target_properties(${target} PROPERTIES LINKER_LANGUAGE C PREFIX "" OUTPUT_NAME ${name} INSTALL_RPATH "")
  if(IMGTK_MODULE_BUILD_DIR)
    set_target_properties(${target} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${IMGTK_MODULE_BUILD_DIR}/${MODULE_FOLDER})
  endif()
  target_link_libraries(${target} PRIVATE ${target}-objects)
  if(MODULE_CODEC)
    target_link_libraries(${target} PRIVATE imgtk-codec)
  endif()
  target_link_libraries(${target} PRIVATE imgtk::imgtk Threads::Threads)
  install(TARGETS ${target} LIBRARY DESTINATION ${IMGTK_MODULE_DIR}/${MODULE_FOLDER} COMPONENT ${MODULE_COMPONENT})
endfunction()

function(imgtk_add_format name)
  imgtk_add_module(format ${name} ${ARGN})
endfunction()

function(imgtk_add_storage name)
  imgtk_add_module(storage ${name} ${ARGN})
endfunction()

# Part of the library's own component: digests are few and small, and jobs of the library need them.
function(imgtk_add_digest name)
  imgtk_add_module(digest ${name} ${ARGN} FOLDER digest COMPONENT libimgtk)
endfunction()
