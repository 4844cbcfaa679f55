// Loads a plugin library as TensorRT would, without TensorRT: host_test LIBRARY. Needs no GPU.
#include "check.h"
#include "host.h"
#include "tests.h"

#include <cstdio>
#include <exception>
#include <string>
#include <utility>
#include <vector>

int main(int argc, char** argv)
{
    using namespace irforge::test;

    if (argc != 2)
    {
        std::fprintf(stderr, "usage: %s LIBRARY\n", argv[0]);
        return 2;
    }
    std::vector<std::pair<char const*, void (*)(Library&)>> const tests{
        {"the library says which TensorRT it is for", the_library_says_which_tensorrt_it_is_for},
        {"every creator is listed", every_creator_is_listed},
        {"plugins have every capability in both phases", plugins_have_every_capability_in_both_phases},
        {"the address of the creator is no unknown field", the_address_of_the_creator_is_no_unknown_field},
        {"output types follow the inputs", output_types_follow_the_inputs},
        {"output shapes are expressions of the inputs", output_shapes_are_expressions_of_the_inputs},
        {"formats are those that the kernels take", formats_are_those_that_the_kernels_take},
        {"a configured plugin takes every shape of its profile", a_configured_plugin_takes_every_shape_of_its_profile},
        {"a serialised plugin comes back the same", a_serialised_plugin_comes_back_the_same},
        {"a clone is the same and outlives its original", a_clone_is_the_same_and_outlives_its_original},
        {"a misuse is refused with one line", a_misuse_is_refused_with_one_line},
        {"a missing logger is survived", a_missing_logger_is_survived},
    };
    try
    {
        Library library{argv[1]};
        for (auto const& [promise, test] : tests)
        {
            std::printf("%s\n", promise);
            try
            {
                test(library);
            }
            catch (std::exception const& error)
            {
                expect(false, std::string{promise} + ": " + error.what());
            }
            for (std::string const& line : library.log().take())
            {
                expect(false, std::string{promise} + ": logged " + line);
            }
        }
    }
    catch (std::exception const& error)
    {
        expect(false, error.what());
    }
    return exit_code();
}
