# PROGRAM must exit with 1 on LIBRARY and print MESSAGE.
execute_process(COMMAND ${PROGRAM} ${LIBRARY} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
string(FIND "${output}" "${MESSAGE}" place)
if(NOT code EQUAL 1 OR place EQUAL -1)
  message(FATAL_ERROR "expected exit code 1 and '${MESSAGE}', found exit code ${code} and:\n${output}")
endif()
