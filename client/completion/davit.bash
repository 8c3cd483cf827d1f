# Completion of davit for bash. davit itself knows what can follow.
_davit() {
    local rest=${COMP_LINE:0:COMP_POINT} blank candidate broken separator i word
    local -a words
    # Bash breaks words at more than blanks: what no blank is between belongs together.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        blank=${rest%%[![:space:]]*}
        rest=${rest#"$blank"}
        word=${COMP_WORDS[i]}
        ((i < COMP_CWORD)) || word=$rest
        rest=${rest#"$word"}
        if [[ $i -eq 0 || -n $blank ]]; then
            words+=("$word")
        else
            words[-1]+=$word
        fi
    done
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
