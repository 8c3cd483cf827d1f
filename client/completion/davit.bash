# Completion of davit for bash. davit itself knows what can follow.
_davit() {
    local line=${COMP_LINE:0:COMP_POINT} candidate broken separator
    local -a words
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    words[-1]=${words[-1]#[\"\']}
    # Readline replaces only what follows the last of these; of "@", that itself.
    local last=${words[-1]} kept=""
    for separator in : = @; do
        if [[ $COMP_WORDBREAKS == *$separator* && $last == *$separator* ]]; then
            broken=${last%"$separator"*}${separator#@}
            [[ ${#broken} -gt ${#kept} ]] && kept=$broken
        fi
    done
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        if [[ $candidate == :files ]]; then
            compopt -o default
        else
            [[ $candidate == *= ]] && compopt -o nospace
            COMPREPLY+=("${candidate#"$kept"}")
        fi
    done < <("${words[0]/#~/$HOME}" __complete -- "${words[@]:1}" 2>/dev/null)
}
complete -F _davit davit
