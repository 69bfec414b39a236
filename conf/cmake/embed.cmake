# Writes RESULT, a C source with the bytes of SOURCE as NAME and their number as NAME_size.
cmake_minimum_required(VERSION 3.18)
file(READ ${SOURCE} bytes HEX)
string(REGEX REPLACE "(................................)" "\\1\n" bytes "${bytes}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(WRITE ${RESULT} "#include \"page.h\"\n\nconst unsigned char ${NAME}[] = {\n${bytes}\n};\n"
     "const size_t ${NAME}_size = sizeof ${NAME};\n")
