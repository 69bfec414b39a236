/* Checks of 32 bits, with zlib as the oracle of one and the values of RFC 3720, appendix B.4, of the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <zlib.h>

#include "imgtk/crc.h"

static void crc32_is_that_of_zlib(void **state)
{
    (void)state;
    uint8_t bytes[1000];
    uint32_t seed = 1;
    for (size_t i = 0; i < sizeof(bytes); i++) {
        seed = seed * 1103515245u + 12345u;
        bytes[i] = (uint8_t)(seed >> 16);
    }
    assert_int_equal(imgtk_crc32(0, "123456789", 9), 0xcbf43926);
    for (size_t length = 0; length <= sizeof(bytes); length++)
        assert_int_equal(imgtk_crc32(0, bytes, length), crc32(0, bytes, (uInt)length));
}

static void crc32c_has_its_check_values(void **state)
{
    (void)state;
    uint8_t bytes[32] = { 0 };
    assert_int_equal(imgtk_crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(imgtk_crc32c(0, bytes, sizeof(bytes)), 0x8a9136aa);
    for (uint8_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = i;
    assert_int_equal(imgtk_crc32c(0, bytes, sizeof(bytes)), 0x46dd794e);
}

static void a_check_goes_on_where_it_was(void **state)
{
    (void)state;
    assert_int_equal(imgtk_crc32(imgtk_crc32(0, "1234", 4), "56789", 5), 0xcbf43926);
    assert_int_equal(imgtk_crc32c(imgtk_crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
    assert_int_equal(imgtk_crc32c(0, "", 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc32_is_that_of_zlib),
        cmocka_unit_test(crc32c_has_its_check_values),
        cmocka_unit_test(a_check_goes_on_where_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
