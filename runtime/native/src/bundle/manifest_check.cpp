#include "bundle/manifest_check.h"

#include <unordered_set>

namespace hart_edge {

namespace {

constexpr std::int64_t ALIGNMENT = 64;  // of constants: a cache line, and what accelerators expect of host memory

constexpr Where TOP;

std::string number(std::size_t value) {
    return std::to_string(value);
}
std::string number(std::int64_t value) {
    return std::to_string(value);
}

void check_rising(const Where &where, const std::vector<std::int64_t> &values) {
    for (std::size_t index = 1; index < values.size(); ++index) {
        if (values[index] > values[index - 1]) continue;
        refuse(Where(where, index), "more than " + number(values[index - 1]) + ", the entry before",
               number(values[index]));
    }
}

// Whether a shape is that of the whole but for some axes, which may be shorter and not empty.
bool is_part(Shape shape, const Shape &whole, const std::vector<std::size_t> &shorter) {
    if (shape.size() != whole.size()) return false;
    for (const std::size_t axis : shorter) {
        Extent &own = shape[axis];
        if (own.images == 0 && own.size >= 1 && own.size <= whole[axis].size) own = whole[axis];
    }
    return shape == whole;
}

void check_once(const Where &where, const std::vector<TensorSpec> &specs) {
    std::unordered_set<std::string_view> seen;
    for (std::size_t index = 0; index < specs.size(); ++index) {
        if (seen.insert(specs[index].name).second) continue;
        const Where at(where, index);
        refuse(Where(at, "name"), "every tensor once", show(specs[index].name) + " twice");
    }
}

void check_component(const Where &where, const Component &component, const Table<FileEntry> &files) {
    if (files.find(component.file) == nullptr) refuse(Where(where, "file"), "a path in files", show(component.file));
    check_once(Where(where, "inputs"), component.inputs);
    check_once(Where(where, "outputs"), component.outputs);
}

void check_constant(const Where &where, const Constant &constant, const Table<FileEntry> &files) {
    const FileEntry *file = files.find(CONSTANTS_FILE);
    if (file == nullptr) refuse(where, std::string(CONSTANTS_FILE) + " in files", "none");
    const std::int64_t bytes = bytes_per_image(constant.dtype, constant.shape);
    if (bytes > MOST_BYTES) refuse(Where(where, "shape"), "at most " + number(MOST_BYTES) + " bytes", number(bytes));
    if (constant.offset % ALIGNMENT != 0) {
        refuse(Where(where, "offset"), "a multiple of " + number(ALIGNMENT), number(constant.offset));
    }
    const std::int64_t end = constant.offset + bytes;
    if (end > file->bytes) {
        refuse(where, "to end within the " + number(file->bytes) + " bytes of " + CONSTANTS_FILE,
               "its end at " + number(end));
    }
}

}  // namespace

void check_tables(const Manifest &manifest) {
    if (manifest.precision == Precision::int4) {
        refuse(Where(TOP, "precision"), "one of fp32, fp16, int8", show(word(manifest.precision)));
    }
    const std::vector<std::int64_t> &sides = manifest.patch_nums;
    const Where patch_nums(TOP, "patch_nums");
    if (sides[0] != 1) refuse(Where(patch_nums, std::size_t{0}), "1", number(sides[0]));
    check_rising(patch_nums, sides);
    if (manifest.image_size != 16 * sides.back()) {
        refuse(Where(TOP, "image_size"), number(16 * sides.back()) + ", 16 times the last of patch_nums",
               number(manifest.image_size));
    }
    check_tables(manifest.sampling, Where(TOP, "sampling"), sides.size(), manifest.vocab_size);
    if (manifest.scales_of_quality && *manifest.scales_of_quality != sides.size()) {
        const Where quality(TOP, "quality");
        refuse(Where(quality, "scales"), number(sides.size()) + " entries, one per scale",
               number(*manifest.scales_of_quality));
    }
    const Where residual(TOP, "residual");
    const std::vector<std::int64_t> &steps = manifest.residual.timesteps;
    check_rising(Where(residual, "timesteps"), steps);
    if (manifest.residual.noise_steps != static_cast<std::int64_t>(steps.size()) + 1) {
        refuse(Where(residual, "noise_steps"), number(steps.size() + 1) + ", one more than timesteps",
               number(manifest.residual.noise_steps));
    }
}

void check_files(const Manifest &manifest) {
    const Where files(TOP, "files");
    if (manifest.files.find(MANIFEST_FILE) != nullptr) {
        refuse(files, "every file but manifest.json", show(std::string_view(MANIFEST_FILE)));
    }
    for (const auto &[name, entry] : manifest.files) {
        for (std::size_t end = name.rfind('/'); end != std::string::npos;
             end = end == 0 ? end : name.rfind('/', end - 1)) {
            const std::string parent = name.substr(0, end);
            if (manifest.files.find(parent) == nullptr) continue;
            refuse(Where(files, name), "a file in a folder", show(parent) + " as a file too");
        }
    }
    const Where components(TOP, "components");
    std::unordered_set<int> seen;
    for (std::size_t index = 0; index < manifest.components.size(); ++index) {
        const Component &component = manifest.components[index];
        const Where where(components, index);
        if (!seen.insert(static_cast<int>(component.name)).second) {
            refuse(Where(where, "name"), "every component once", show(word(component.name)) + " twice");
        }
        check_component(where, component, manifest.files);
    }
    if (manifest.tokenizer && manifest.files.find(manifest.tokenizer->file) == nullptr) {
        const Where tokenizer(TOP, "tokenizer");
        refuse(Where(tokenizer, "file"), "a path in files", show(manifest.tokenizer->file));
    }
    const Where constants(TOP, "constants");
    for (const auto &[name, constant] : manifest.constants) {
        check_constant(Where(constants, name), constant, manifest.files);
    }
}

void check_inputs(const Manifest &manifest, const Plan &plan, const Where &root) {
    const Where buffers(root, "buffers");
    const Extent images{0, 1};
    const Extent tokens{manifest.context_tokens, 0};
    bool takes_ids = false;
    for (const auto &[name, buffer] : plan.buffers) {
        if (buffer.kind != BufferKind::input) continue;
        takes_ids = takes_ids || name == "input_ids";
        const Dtype dtype = name == "input_ids" ? Dtype::int64 : name == "context" ? Dtype::float32 : Dtype::boolean;
        Shape shape{images, tokens};
        if (name == "context") shape.push_back({manifest.context_dim, 0});
        if (buffer.dtype != dtype || buffer.shape != shape) {
            refuse(Where(buffers, name), std::string(word(dtype)) + " " + shape_text(shape),
                   std::string(word(buffer.dtype)) + " " + shape_text(buffer.shape));
        }
    }
    const Where tokenizer(TOP, "tokenizer");
    if (manifest.tokenizer && manifest.tokenizer->embeddings > 0 &&
        manifest.tokenizer->pad_token_id >= manifest.tokenizer->embeddings) {
        refuse(Where(tokenizer, "pad_token_id"),
               "an id below " + number(manifest.tokenizer->embeddings) + ", the embeddings",
               number(manifest.tokenizer->pad_token_id));
    }
    if (!manifest.tokenizer && takes_ids) refuse(tokenizer, "a tokenizer, because the plan takes input_ids", "null");
    if (manifest.tokenizer && !takes_ids) {
        refuse(tokenizer, "null, because the plan takes a context array", "a tokenizer");
    }
}

void check_noise(const Manifest &manifest, const Plan &plan, const Where &root) {
    const Where buffers(root, "buffers");
    for (const auto &[name, buffer] : plan.buffers) {
        if (buffer.kind != BufferKind::noise) continue;
        const Where where(buffers, name);
        const std::int64_t side = manifest.patch_nums[static_cast<std::size_t>(*buffer.scale)];
        const Extent images{0, 1};
        const Extent tokens{side * side, 0};
        const bool residual = buffer.purpose == 1;
        const Distribution wanted = residual ? Distribution::normal : Distribution::uniform;
        if (buffer.distribution != wanted) {
            refuse(Where(where, "distribution"), show(word(wanted)), show(word(buffer.distribution)));
        }
        Shape whole{images, tokens, {manifest.vocab_size, 0}};
        std::string fewer = "tokens";
        std::vector<std::size_t> shorter{1};  // axes that may be
        if (residual) {
            const std::int64_t draws = manifest.residual.noise_steps - buffer.draw.value_or(0);
            if (draws < 1) {
                refuse(Where(where, "draw"), "a draw below " + number(manifest.residual.noise_steps),
                       number(*buffer.draw));
            }
            whole = {images, {draws, 0}, tokens, {manifest.z_channels, 0}};
            fewer = "draws or tokens";
            shorter = {1, 2};
        } else if (buffer.draw) {
            refuse(Where(where, "draw"), "none, since tokens have one draw", number(*buffer.draw));
        }
        if (!is_part(buffer.shape, whole, shorter)) {
            refuse(Where(where, "shape"), shape_text(whole) + " or fewer " + fewer, shape_text(buffer.shape));
        }
    }
}

}  // namespace hart_edge
