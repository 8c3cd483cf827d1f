# Completion of davit for fish. davit itself knows what can follow.
function __davit_complete
    set -l words (commandline -opc)
    set -l program $words[1]
    set -e words[1]
    set -l current (commandline -ct | string replace -r "^[\"']" "")
    for candidate in ($program __complete -- $words $current 2>/dev/null)
        if test "$candidate" = :files
            set -l flag (string match -r -- '^--[^=]*=' $current)
            set -l path (string replace -r -- '^--[^=]*=' '' $current)
            for file in (complete -C "'' $path")
                echo "$flag$file"
            end
        else
            echo $candidate
        end
    end
end
complete -c davit -f -a '(__davit_complete)'
