// Promises that a test program holds the library to; what does not hold is printed and counted.
#pragma once

#include <sstream>
#include <string>

namespace irforge::test
{

void expect(bool holds, std::string const& promise);

template <typename Found, typename Expected>
void expect_equal(Found const& found, Expected const& expected, std::string const& promise)
{
    if (found == expected)
    {
        expect(true, promise);
        return;
    }
    std::ostringstream line;
    line << promise << ": expected " << expected << ", found " << found;
    expect(false, line.str());
}

// Prints the count; 0 if every promise held, else 1.
int exit_code();

} // namespace irforge::test
