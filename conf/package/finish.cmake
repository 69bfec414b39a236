# Read by CPack when the packages are made.
execute_process(COMMAND ${CPACK_IMGTK_SOURCE_DIR}/conf/package/member-modes ${CPACK_PACKAGE_FILES}
  COMMAND_ERROR_IS_FATAL ANY)
