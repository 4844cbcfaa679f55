// Checks for test programs: a failed one is printed with its place and values, and makes `report()` return 1.
#pragma once

#include <iostream>
#include <string>

namespace irforge::test
{

inline int checks = 0;
inline int failures = 0;

constexpr int kSkipped = 77; // what ctest takes for "skipped"
constexpr int kMostPrinted = 20;

// `context` says which case it was, for checks inside loops.
inline bool check(bool holds, char const* file, int line, std::string const& promise, std::string const& context = "")
{
    ++checks;
    if (!holds && ++failures <= kMostPrinted)
    {
        std::cerr << file << ":" << line << ": FAIL: " << promise;
        std::cerr << (context.empty() ? "" : " [" + context + "]") << "\n";
    }
    return holds;
}

inline int report(char const* program)
{
    std::cout << program << ": " << checks - failures << " checks passed, " << failures << " failed\n";
    return failures == 0 ? 0 : 1;
}

} // namespace irforge::test

#define CHECK(condition) ::irforge::test::check((condition), __FILE__, __LINE__, #condition)
#define CHECK_IN(condition, context) ::irforge::test::check((condition), __FILE__, __LINE__, #condition, (context))
