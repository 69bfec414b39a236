# Toolchain for s390x, a big-endian machine: Debian's cross compiler and its C library, other libraries that
# tests/s390x/sysroot fetched, and qemu-user to run what is built.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR s390x)
set(CMAKE_C_COMPILER s390x-linux-gnu-gcc)
set(CMAKE_LIBRARY_ARCHITECTURE s390x-linux-gnu)

set(IMGTK_SYSROOT "" CACHE PATH "Folder with the libraries of the target machine")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES IMGTK_SYSROOT)
set(libraries ${IMGTK_SYSROOT}/usr/lib/s390x-linux-gnu)
set(system /usr/s390x-linux-gnu/lib)
set(ENV{PKG_CONFIG_LIBDIR} ${libraries}/pkgconfig)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${IMGTK_SYSROOT})
set(CMAKE_C_FLAGS_INIT "-isystem ${IMGTK_SYSROOT}/usr/include/s390x-linux-gnu")
foreach(kind EXE SHARED MODULE)
  set(CMAKE_${kind}_LINKER_FLAGS_INIT "-L${libraries} -Wl,-rpath-link,${libraries}")
endforeach()

# Not qemu's -L, which would show programs another "/" than the machine's.
string(APPEND CMAKE_EXE_LINKER_FLAGS_INIT " -Wl,--dynamic-linker,${system}/ld64.so.1")
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-s390x -E "LD_LIBRARY_PATH=${libraries}:${system}"
    CACHE STRING "What runs programs of the target machine")
