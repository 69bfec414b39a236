# Read by CPack before it installs anything.
if(NOT CPACK_IMGTK_PREFIX STREQUAL "/usr")
  message(FATAL_ERROR "Packages are for /usr, this build is for ${CPACK_IMGTK_PREFIX}: use the preset 'package'")
endif()

# The time that packages are from is that of the changelog, unless the caller sets it: two builds give the same bytes.
if(NOT DEFINED ENV{SOURCE_DATE_EPOCH})
  execute_process(COMMAND dpkg-parsechangelog -l ${CPACK_IMGTK_SOURCE_DIR}/conf/package/changelog -S Timestamp
    OUTPUT_VARIABLE timestamp OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(ENV{SOURCE_DATE_EPOCH} ${timestamp})
endif()

# For a package with a library CPack writes scripts that call ldconfig once more; dpkg's trigger has done it. It does not
# when it is not told of libraries, so that their dependencies are asked for here.
set(scratch ${CMAKE_CURRENT_BINARY_DIR}/package/shlibdeps)
file(WRITE ${scratch}/debian/control "")
file(GLOB digests ${CPACK_IMGTK_DIGESTS}/*.so)
execute_process(COMMAND dpkg-shlibdeps -O --ignore-missing-info -l${CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS}
  ${CPACK_IMGTK_LIBRARY} ${digests} WORKING_DIRECTORY ${scratch}
  OUTPUT_VARIABLE depends OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
string(REGEX REPLACE "^.*Depends=" "" CPACK_DEBIAN_LIBIMGTK_PACKAGE_DEPENDS "${depends}")
set(CPACK_DEBIAN_LIBIMGTK_PACKAGE_SHLIBDEPS OFF)
