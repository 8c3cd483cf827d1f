# Completion of davit for fish. davit itself knows what can follow.
function __davit_complete
    set -l words (commandline -opc)
    set -l program $words[1]
    set -e words[1]
    set -l candidates ($program __complete -- $words (commandline -ct) 2>/dev/null)
    if set -q candidates[1]
        printf '%s\n' $candidates
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c davit -f -a '(__davit_complete)'
