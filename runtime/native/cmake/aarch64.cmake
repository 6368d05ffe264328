# Toolchain file: the library for 64-bit ARM (Jetson, Raspberry Pi), built on another machine with Debian's cross
# compiler. The headers and libraries of the device's side lie in HART_EDGE_SYSROOT, by default the folder `sysroot` of
# the build folder, where aarch64-sysroot.sh puts them. docs/aarch64.md shows the commands.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

set(HART_EDGE_SYSROOT ${CMAKE_BINARY_DIR}/sysroot CACHE PATH "Headers and libraries of the device's side")
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES HART_EDGE_SYSROOT)
if(NOT EXISTS ${HART_EDGE_SYSROOT}/usr)
  message(FATAL_ERROR "hart-edge: expected an arm64 sysroot in ${HART_EDGE_SYSROOT}, found none; on Debian:\n"
                      "  ${CMAKE_CURRENT_LIST_DIR}/aarch64-sysroot.sh ${HART_EDGE_SYSROOT}")
endif()
set(CMAKE_SYSROOT ${HART_EDGE_SYSROOT})

# Libraries and headers come from there alone; ONNX Runtime's header, which is the same for every machine, from where
# the user has it, or from the build folder.
set(CMAKE_FIND_ROOT_PATH ${CMAKE_BINARY_DIR} ${ONNXRUNTIME_ROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
