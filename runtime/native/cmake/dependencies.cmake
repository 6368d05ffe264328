# What the library is built from: hart_edge_dependencies and ONNXRUNTIME_INCLUDE. Says what was found, and what to
# install where something was not.

set(missing "")

# The header of a library and the library itself, static where that is asked for and there.
function(hart_edge_library name header prefer_static package)
  find_path(${name}_INCLUDE ${header})
  if(prefer_static)
    find_library(${name}_LIBRARY NAMES lib${name}.a ${name})
  else()
    find_library(${name}_LIBRARY NAMES ${name})
  endif()
  if(${name}_INCLUDE AND ${name}_LIBRARY)
    target_include_directories(hart_edge_dependencies SYSTEM INTERFACE ${${name}_INCLUDE})
    target_link_libraries(hart_edge_dependencies INTERFACE ${${name}_LIBRARY})
    message(STATUS "hart-edge: ${name} from ${${name}_LIBRARY}")
  else()
    set(missing "${missing} ${package}" PARENT_SCOPE)
  endif()
endfunction()

add_library(hart_edge_dependencies INTERFACE)
# Of libcrypto only SHA-256 is used, 35 KB of it: always linked in where there is a static library.
hart_edge_library(crypto openssl/sha.h ON libssl-dev)
hart_edge_library(pcre2-8 pcre2.h ${HART_EDGE_STATIC_DEPENDENCIES} libpcre2-dev)
hart_edge_library(utf8proc utf8proc.h ${HART_EDGE_STATIC_DEPENDENCIES} libutf8proc-dev)
find_path(nlohmann_INCLUDE nlohmann/json.hpp)
if(nlohmann_INCLUDE)
  target_include_directories(hart_edge_dependencies SYSTEM INTERFACE ${nlohmann_INCLUDE})
else()
  string(APPEND missing " nlohmann-json3-dev")
endif()
target_link_libraries(hart_edge_dependencies INTERFACE ${CMAKE_DL_LIBS})
if(missing)
  message(FATAL_ERROR "hart-edge: expected these packages, found none of theirs:${missing}; on Debian or Ubuntu:\n"
                      "  apt-get install${missing}")
endif()

# ONNX Runtime is loaded when a program runs; its header is all that a build needs.
set(fetched ${CMAKE_CURRENT_BINARY_DIR}/onnxruntime)
find_path(ONNXRUNTIME_INCLUDE onnxruntime_c_api.h
          HINTS ${ONNXRUNTIME_ROOT}/include ${fetched}/include
          PATH_SUFFIXES onnxruntime onnxruntime/core/session)
if(NOT ONNXRUNTIME_INCLUDE)
  message(STATUS "hart-edge: no header of ONNX Runtime here, fetching Debian's")
  execute_process(COMMAND ${CMAKE_CURRENT_LIST_DIR}/fetch-onnxruntime-headers.sh ${fetched} RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "hart-edge: expected ONNX Runtime's header, found none; see above")
  endif()
  find_path(ONNXRUNTIME_INCLUDE onnxruntime_c_api.h HINTS ${fetched}/include REQUIRED)
endif()
file(STRINGS ${ONNXRUNTIME_INCLUDE}/onnxruntime_c_api.h version REGEX "define ORT_API_VERSION")
string(REGEX MATCH "[0-9]+" version "${version}")
message(STATUS "hart-edge: ONNX Runtime (CPU, CUDA) through the header of 1.${version} in ${ONNXRUNTIME_INCLUDE}")

# TensorRT and CUDA's driver are loaded when a program runs as well.
set(tensorrt_headers OFF)
if(HART_EDGE_TENSORRT)
  find_path(TENSORRT_INCLUDE NvInferRuntime.h HINTS ${TENSORRT_ROOT}/include)
  find_path(CUDA_INCLUDE cuda.h HINTS ${TENSORRT_ROOT}/include /usr/local/cuda/include)
  if(TENSORRT_INCLUDE AND CUDA_INCLUDE)
    set(tensorrt_headers ON)
    message(STATUS "hart-edge: TensorRT through the headers in ${TENSORRT_INCLUDE}, CUDA's in ${CUDA_INCLUDE}")
  elseif(HART_EDGE_TENSORRT STREQUAL "AUTO")
    message(STATUS "hart-edge: without TensorRT, because NvInferRuntime.h or cuda.h is not here (-DTENSORRT_ROOT=DIR)")
  else()
    message(FATAL_ERROR "hart-edge: expected NvInferRuntime.h and cuda.h, found one or none; install TensorRT's "
                        "development package (libnvinfer-headers-dev) and CUDA's, or name them: -DTENSORRT_ROOT=DIR")
  endif()
else()
  message(STATUS "hart-edge: without TensorRT, as HART_EDGE_TENSORRT says")
endif()
