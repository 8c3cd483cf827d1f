# Completion of davit for bash. davit itself knows what can follow.
_davit() {
    local line=${COMP_LINE:0:COMP_POINT} candidate broken separator
    local -a words
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    # Readline replaces only what follows the last of these.
    local last=${words[-1]} kept=""
    for separator in : =; do
        if [[ $COMP_WORDBREAKS == *$separator* && $last == *$separator* ]]; then
            broken=${last%"${last##*"$separator"}"}
            [[ ${#broken} -gt ${#kept} ]] && kept=$broken
        fi
    done
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        COMPREPLY+=("${candidate#"$kept"}")
    done < <("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null)
}
complete -o default -F _davit davit
