// A plugin's state: through an engine file and through copies.
#include "check.h"
#include "host.h"
#include "tests.h"
#include "words.h"

#include <cstddef>
#include <cstring>
#include <list>
#include <string>
#include <vector>

namespace irforge::test
{

using namespace nvinfer1;

namespace
{

// Serialised fields as they come back from an engine file: copies, at odd addresses.
class Engine
{
public:
    explicit Engine(PluginFieldCollection const& fields)
    {
        for (std::int32_t i = 0; i < fields.nbFields; ++i)
        {
            PluginField const& field = fields.fields[i];
            std::size_t const bytes = static_cast<std::size_t>(field.length) * sizeof(float);
            auto& copy = bytes_.emplace_back(bytes + 1);
            std::memcpy(copy.data() + 1, field.data, bytes);
            fields_.emplace_back(names_.emplace_back(field.name).c_str(), copy.data() + 1, field.type, field.length);
        }
    }

    Fields const& fields() const
    {
        return fields_;
    }

private:
    std::list<std::string> names_;
    std::list<std::vector<std::byte>> bytes_;
    Fields fields_;
};

Engine serialize(PluginPtr plugin)
{
    return Engine{*runtime(*plugin).getFieldsToSerialize()};
}

} // namespace

void a_serialised_plugin_comes_back_the_same(Library& library)
{
    for (Node const& node : nodes())
    {
        std::string const name = node.name;
        std::string const original = description(*library.plugin(name, node.fields));
        Engine const engine = serialize(library.plugin(name, node.fields));
        expect_equal(engine.fields().size(), node.fields.size(), name + " number of serialised fields");
        for (PluginField const& given : node.fields)
        {
            bool found = false;
            for (PluginField const& field : engine.fields())
            {
                found = found
                    || (std::strcmp(field.name, given.name) == 0 && field.type == given.type
                        && field.length == given.length && std::memcmp(field.data, given.data, sizeof(float)) == 0);
            }
            expect(found, name + " serialises its field " + given.name);
        }
        auto const fields = collection(engine.fields());
        PluginPtr const again{library.creator(name).createPlugin("", &fields, TensorRTPhase::kRUNTIME)};
        expect(again != nullptr, name + " can be made again from its serialised fields");
        if (again != nullptr)
        {
            expect_equal(description(*again), original, name + " made again");
        }
    }
}

void a_clone_is_the_same_and_outlives_its_original(Library& library)
{
    for (Node const& node : nodes())
    {
        std::string const name = node.name;
        PluginPtr original = library.plugin(name, node.fields);
        std::string const expected = description(*original);
        PluginPtr const clone{original->clone()};
        PluginPtr const attached{runtime(*original).attachToContext(nullptr)};
        expect(clone != nullptr && clone != original, name + " has a clone of its own");
        expect(attached != nullptr && attached != original, name + " has an attached copy of its own");
        if (clone == nullptr || attached == nullptr)
        {
            continue;
        }
        original.reset();
        expect_equal(description(*clone), expected, name + " cloned");
        expect_equal(description(*attached), expected, name + " attached");
        PluginPtr const second{clone->clone()};
        expect_equal(description(*second), expected, name + " cloned from a clone");
    }
}

} // namespace irforge::test
