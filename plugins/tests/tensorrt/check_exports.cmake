# LIBRARY must show its entry points and nothing else, and link no TensorRT library.
execute_process(COMMAND ${NM} -D --defined-only --format=posix ${LIBRARY}
  OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+" lines "${symbols}")
list(TRANSFORM lines REPLACE " .*" "")
list(SORT lines)
set(expected getCreators irforge_tensorrt_major setLoggerFinder)
if(NOT lines STREQUAL expected)
  message(FATAL_ERROR "expected the exports ${expected}, found ${lines}")
endif()

execute_process(COMMAND ${READELF} -d ${LIBRARY} OUTPUT_VARIABLE dynamic COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${NM} -D --undefined-only ${LIBRARY} OUTPUT_VARIABLE undefined COMMAND_ERROR_IS_FATAL ANY)
string(TOLOWER "${dynamic}${undefined}" needed)
foreach(name nvinfer getpluginregistry getlogger)
  if(needed MATCHES "${name}")
    message(FATAL_ERROR "expected no need of TensorRT's libraries, found ${name}")
  endif()
endforeach()
