// What the library is held to, promise by promise.
#pragma once

#include "host.h"

namespace irforge::test
{

void the_library_says_which_tensorrt_it_is_for(Library& library);
void every_creator_is_listed(Library& library);
void plugins_have_every_capability_in_both_phases(Library& library);
void the_address_of_the_creator_is_no_unknown_field(Library& library);
void output_types_follow_the_inputs(Library& library);
void output_shapes_are_expressions_of_the_inputs(Library& library);

void formats_are_those_that_the_kernels_take(Library& library);
void a_configured_plugin_takes_every_shape_of_its_profile(Library& library);

void a_serialised_plugin_comes_back_the_same(Library& library);
void a_clone_is_the_same_and_outlives_its_original(Library& library);

void a_misuse_is_refused_with_one_line(Library& library);
void a_missing_logger_is_survived(Library& library);

} // namespace irforge::test
