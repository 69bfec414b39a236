# fish completion for imgtk, which itself tells what can stand at the cursor: `imgtk help --complete` in imgtk(1).

# What is kept of the word, what is begun behind it, and the kind of names that can stand there.
function __imgtk_names
    for name in (complete -C "__imgtk_no_such_command $(string escape -- $argv[2])")
        if test $argv[3] = files; or string match -q '*/' -- $name
            printf '%s%s\n' $argv[1] $name
        end
    end
end

function __imgtk_words
    set -l words (commandline -opc)
    set -l program $words[1]
    set -l begun (commandline -ct)
    set -e words[1]
    for line in ($program help --complete $words "$begun" 2>/dev/null)
        set -l names (string match -r '^:(files|folders) (.*)$' -- $line)
        if test -n "$names"
            __imgtk_names "$names[3]" (string sub -s (math (string length -- "$names[3]") + 1) -- "$begun") $names[2]
        else
            printf '%s\n' $line
        end
    end
end

complete -c imgtk -f -k -a '(__imgtk_words)'
