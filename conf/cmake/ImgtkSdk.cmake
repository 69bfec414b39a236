# What a program or a module built elsewhere needs, beside headers and library: for pkg-config and for CMake.
include(CMakePackageConfigHelpers)
set(cmake_folder ${CMAKE_INSTALL_LIBDIR}/cmake/imgtk)

configure_file(conf/imgtk.pc.in imgtk.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/imgtk.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT dev)

configure_package_config_file(conf/imgtkConfig.cmake.in imgtkConfig.cmake INSTALL_DESTINATION ${cmake_folder})
write_basic_package_version_file(imgtkConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES docs/library.md docs/writing-a-format.md docs/abi.md
  DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/libimgtk-dev COMPONENT dev)
install(DIRECTORY docs/examples DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/libimgtk-dev COMPONENT dev)
install(EXPORT imgtkTargets NAMESPACE imgtk:: DESTINATION ${cmake_folder} COMPONENT dev)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/imgtkConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/imgtkConfigVersion.cmake
  conf/cmake/ImgtkModule.cmake DESTINATION ${cmake_folder} COMPONENT dev)
