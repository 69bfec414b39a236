# bash completion for imgtk, which itself tells what can stand at the cursor: `imgtk help --complete` in imgtk(1).

# What is kept of the word and the kind of names ("files" or "folders") that can stand behind it.
_imgtk_names()
{
    local kept=$1 cur=${cur#"$1"}
    if [[ $2 == folders ]]; then
        _filedir -d
    else
        _filedir
    fi
    COMPREPLY=("${COMPREPLY[@]/#/"$kept"}")
}

# Readline keeps what is before one of these characters and gets the rest alone.
_imgtk_trim()
{
    local breaks=${COMP_WORDBREAKS//[^=:]/}
    local kept=${cur%"${cur##*["$breaks"]}"}
    if [[ $breaks && $kept ]]; then
        COMPREPLY=("${COMPREPLY[@]#"$kept"}")
    fi
}

_imgtk()
{
    local cur words cword line kept
    _get_comp_words_by_ref -n '=:' cur words cword
    words[cword]=$cur
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
        :files\ * | :folders\ *)
            kept=${line#* } line=${line%% *}
            _imgtk_names "$kept" "${line#:}"
            ;;
        *)
            COMPREPLY+=("${line%%$'\t'*}")
            ;;
        esac
    done < <("${words[0]/#\~/$HOME}" help --complete "${words[@]:1:cword}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace
    fi
    _imgtk_trim
}

complete -F _imgtk imgtk
