#include "check.h"

#include <cstdio>

namespace irforge::test
{

namespace
{

int held = 0;
int broken = 0;

} // namespace

void expect(bool holds, std::string const& promise)
{
    if (holds)
    {
        ++held;
        return;
    }
    ++broken;
    std::printf("FAIL: %s\n", promise.c_str());
}

int exit_code()
{
    std::printf("%d promises held, %d broken\n", held, broken);
    return broken == 0 && held > 0 ? 0 : 1;
}

} // namespace irforge::test
