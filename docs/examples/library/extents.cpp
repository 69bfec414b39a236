// extents IMAGE: lists where the disk holds data and where zeroes, and how deep in the chain. In C++: the headers are C's,
// and what the library hands out is freed by the functions that belong to it.
#include <imgtk/jobs.h>

#include <iostream>
#include <memory>
#include <stdexcept>

namespace {

// An error as an exception.
void check(int status, const imgtk_error &error)
{
    if (status != 0)
        throw std::runtime_error(error.message);
}

using Context = std::unique_ptr<imgtk_context, decltype(&imgtk_context_free)>;
using Image = std::unique_ptr<imgtk_image, decltype(&imgtk_image_close)>;

Context make_context()
{
    imgtk_error error = IMGTK_ERROR_INIT;
    imgtk_context *context = nullptr;
    check(imgtk_context_new(&context, &error), error);
    return {context, imgtk_context_free};
}

Image open(imgtk_context *context, const char *name)
{
    imgtk_error error = IMGTK_ERROR_INIT;
    imgtk_image *image = nullptr;
    check(imgtk_image_open(context, name, nullptr, &image, &error), error);
    return {image, imgtk_image_close};
}

// No exception may leave a function that C calls.
int print_row(void *count, const imgtk_chain_extent *row) noexcept
{
    ++*static_cast<unsigned *>(count);
    std::cout << row->start << ' ' << row->extent.length << ' '
              << (row->extent.kind == IMGTK_EXTENT_DATA ? "data" : "zero") << ' ' << row->depth << '\n';
    return 0;
}

void list(imgtk_image *image)
{
    imgtk_error error = IMGTK_ERROR_INIT;
    unsigned count = 0;
    struct imgtk_map job = {}; // the function has the same name
    job.image = image;
    job.length = UINT64_MAX;
    job.row = print_row;
    job.context = &count;
    check(imgtk_map(&job, &error), error);
    std::cout << count << " extents, " << imgtk_image_size(image) << " bytes\n";
}

} // namespace

int main(int count, char **words)
{
    if (count != 2) {
        std::cerr << "usage: extents IMAGE\n";
        return 2;
    }
    try {
        Context context = make_context(); // outlives the image
        Image image = open(context.get(), words[1]);
        list(image.get());
    } catch (const std::exception &error) {
        std::cerr << "extents: " << error.what() << '\n';
        return 1;
    }
    return 0;
}
