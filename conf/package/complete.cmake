# Read by CPack when the components are installed: what Debian's policy asks of each package.
find_program(GZIP gzip REQUIRED)
find_program(STRIP strip REQUIRED)
unset(ENV{DESTDIR}) # the folders below are named in full
set(CMAKE_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS ${CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS})

foreach(component IN LISTS CPACK_COMPONENTS_ALL)
  string(TOUPPER ${component} key)
  set(share ${CPACK_TEMPORARY_INSTALL_DIRECTORY}/${component}/usr/share)
  file(INSTALL ${CPACK_IMGTK_SOURCE_DIR}/conf/package/copyright ${CPACK_IMGTK_SOURCE_DIR}/conf/package/changelog
    DESTINATION ${share}/doc/${CPACK_DEBIAN_${key}_PACKAGE_NAME})
  file(GLOB large ${share}/man/man*/* ${share}/doc/*/changelog)
  execute_process(COMMAND ${GZIP} -9n ${large} COMMAND_ERROR_IS_FATAL ANY)
endforeach()

# The compiler's name, which no program reads; CMake strips the rest.
execute_process(COMMAND find ${CPACK_TEMPORARY_INSTALL_DIRECTORY} -type f ( -name *.so -o -name *.so.* -o -path */usr/bin/imgtk
  -o -path */usr/libexec/* ) -exec ${STRIP} --remove-section=.comment {} +
  COMMAND_ERROR_IS_FATAL ANY)

# Whatever the umask of the one who builds.
execute_process(COMMAND find ${CPACK_TEMPORARY_INSTALL_DIRECTORY} -type d -exec chmod 755 {} +
  COMMAND_ERROR_IS_FATAL ANY)
