# Debian packages, one for each installation component that there is: see docs/packages.md.
set(IMGTK_MAINTAINER "The imgtk authors <imgtk@imgtk.invalid>" CACHE STRING "Whom the packages name as their maintainer")

# imgtk_package(COMPONENT NAME SECTION DEPENDS SUMMARY TEXT): DEPENDS beside what dpkg-shlibdeps finds.
function(imgtk_package component name section depends summary text)
  string(TOUPPER ${component} key)
  set(CPACK_DEBIAN_${key}_PACKAGE_NAME ${name} PARENT_SCOPE)
  set(CPACK_DEBIAN_${key}_PACKAGE_SECTION ${section} PARENT_SCOPE)
  set(CPACK_DEBIAN_${key}_PACKAGE_DEPENDS "${depends}" PARENT_SCOPE)
  set(CPACK_DEBIAN_${key}_DESCRIPTION "${summary}\n${text}" PARENT_SCOPE)
  set(IMGTK_PACKAGED ${IMGTK_PACKAGED} ${component} PARENT_SCOPE)
endfunction()

set(library "libimgtk1 (>= ${PROJECT_VERSION})")
set(about "imgtk reads, maps, converts and writes virtual disk images with all CPUs,
copies only what is there and trusts nothing that an image says.")

imgtk_package(cli imgtk utils "${library}" "convert, map, create and check virtual disk images"
"${about}
.
This is the program. It reads and writes raw images by itself; each other
format is a package of its own, imgtk-format-NAME.")
set(CPACK_DEBIAN_CLI_PACKAGE_RECOMMENDS "imgtk-format-qcow2, imgtk-format-vmdk, imgtk-format-vpc, imgtk-format-vhdx, \
imgtk-format-vdi")
set(CPACK_DEBIAN_CLI_PACKAGE_SUGGESTS "imgtk-storage-nbd, imgtk-storage-http, nbdkit-plugin-imgtk")

imgtk_package(libimgtk libimgtk1 libs "" "library for virtual disk images"
"${about}
.
This is the library that the program, the modules and other programs use.")

imgtk_package(dev libimgtk-dev libdevel "libimgtk1 (= ${PROJECT_VERSION}), imgtk, python3:any"
"virtual disk images: headers and what modules are built with"
"${about}
.
These are the headers of the library, the files for pkg-config and CMake, the
conformance tests for a format of one's own, and examples.")

foreach(row "qcow2;QEMU's qcow2" "vmdk;VMware's VMDK" "vpc;VHD of Virtual PC" "vhdx;VHDX of Hyper-V" "vdi;VirtualBox's VDI")
  list(GET row 0 format)
  list(GET row 1 name)
  imgtk_package(format-${format} imgtk-format-${format} utils "${library}" "virtual disk images: ${name}"
"${about}
.
With this module it reads and writes ${name}.")
endforeach()

imgtk_package(storage-nbd imgtk-storage-nbd utils "${library}" "virtual disk images: exports of NBD servers"
"${about}
.
With this module it reads and writes the exports of NBD servers: nbd://,
nbds:// and nbd+unix://.")
imgtk_package(storage-http imgtk-storage-http utils "${library}" "virtual disk images: over HTTP"
"${about}
.
With this module it reads images from HTTP servers: http:// and https://.")
imgtk_package(nbdkit-plugin-imgtk nbdkit-plugin-imgtk utils "${library}, nbdkit"
"virtual disk images: a plugin for nbdkit"
"${about}
.
With this plugin nbdkit serves the disk that an image holds, whatever its
format, to NBD clients.")

get_cmake_property(CPACK_COMPONENTS_ALL COMPONENTS)
foreach(component IN LISTS CPACK_COMPONENTS_ALL)
  if(NOT component IN_LIST IMGTK_PACKAGED)
    message(FATAL_ERROR "The component ${component} has no package: describe one in conf/cmake/ImgtkPackages.cmake")
  endif()
endforeach()

# What dpkg wants to know beside the files.
configure_file(conf/package/shlibs.in package/shlibs @ONLY)
configure_file(conf/libimgtk.symbols package/symbols COPYONLY)
set(CPACK_DEBIAN_LIBIMGTK_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_BINARY_DIR}/package/shlibs
  ${CMAKE_CURRENT_BINARY_DIR}/package/symbols ${CMAKE_CURRENT_SOURCE_DIR}/conf/package/triggers)
set(CPACK_DEBIAN_CLI_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_SOURCE_DIR}/conf/package/conffiles)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

set(CPACK_GENERATOR DEB)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SOURCE imgtk)
set(CPACK_DEBIAN_PACKAGE_MAINTAINER ${IMGTK_MAINTAINER})
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${CMAKE_LIBRARY_OUTPUT_DIRECTORY})
set(CPACK_STRIP_FILES ON)
set(CPACK_SET_DESTDIR ON)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/packages)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE
  WORLD_READ WORLD_EXECUTE)
set(CPACK_PROJECT_CONFIG_FILE ${CMAKE_CURRENT_SOURCE_DIR}/conf/package/configure.cmake)
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_SOURCE_DIR}/conf/package/complete.cmake)
set(CPACK_POST_BUILD_SCRIPTS ${CMAKE_CURRENT_SOURCE_DIR}/conf/package/finish.cmake)
set(CPACK_IMGTK_SOURCE_DIR ${CMAKE_CURRENT_SOURCE_DIR})
set(CPACK_IMGTK_LIBRARY ${CMAKE_LIBRARY_OUTPUT_DIRECTORY}/libimgtk.so.${PROJECT_VERSION})
set(CPACK_IMGTK_DIGESTS ${IMGTK_MODULE_BUILD_DIR}/digest)
set(CPACK_IMGTK_PREFIX ${CMAKE_INSTALL_PREFIX})
include(CPack)

add_custom_target(dist COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/conf/package/archive ${PROJECT_VERSION} ${CMAKE_CURRENT_BINARY_DIR}/packages
  COMMENT "The source archive" VERBATIM)
