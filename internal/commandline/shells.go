package commandline

import (
	"fmt"
	"io"
	"strings"
)

// Shells are those that [Script] and [Answer] know.
var Shells = []string{"bash", "zsh", "fish", "powershell"}

// Word is the first argument with which the scripts call the program, followed by the shell and the words for [Answer].
const Word = "__complete"

// What the scripts do besides offering candidates.
const (
	files       = ":files"
	directories = ":directories"
)

// The scripts call the program with the words up to the cursor, so that completions are always those of its version.
var scripts = map[string]string{
	"bash": `# Completion of PROGRAM for bash.
_PROGRAM() {
    local line IFS=$'\n'
    COMPREPLY=()
    for line in $("$1" __complete bash "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null); do
        case $line in
        :files) compopt -o default 2>/dev/null ;;
        :directories) compopt -o dirnames 2>/dev/null ;;
        *) COMPREPLY+=("$line") ;;
        esac
    done
}
complete -F _PROGRAM PROGRAM
`,
	"zsh": `#compdef PROGRAM
# Completion of PROGRAM for zsh.
_PROGRAM() {
    local line kind
    local -a candidates
    for line in "${(@f)$("${words[1]}" __complete zsh "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
        case $line in
        (:files | :directories) kind=$line ;;
        (?*) candidates+=("$line") ;;
        esac
    done
    (( $#candidates )) && _describe value candidates
    [[ $PREFIX == --*=* ]] && compset -P '*='
    [[ $kind == :files ]] && _files
    [[ $kind == :directories ]] && _files -/
}
if [[ $funcstack[1] == _PROGRAM ]]; then
    _PROGRAM "$@"
else
    compdef _PROGRAM PROGRAM
fi
`,
	"fish": `# Completion of PROGRAM for fish.
function __PROGRAM_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    for line in ($program __complete fish $words "$current" 2>/dev/null)
        switch $line
            case :files
                __fish_complete_path (string replace -r '^--[^=]*=' '' -- "$current")
            case :directories
                __fish_complete_directories (string replace -r '^--[^=]*=' '' -- "$current")
            case '*'
                echo $line
        end
    end
end
complete -c PROGRAM -f -a '(__PROGRAM_complete)'
`,
	// Windows PowerShell drops arguments that are empty: the last word has a plus sign in front.
	"powershell": `# Completion of PROGRAM for PowerShell.
Register-ArgumentCompleter -Native -CommandName 'PROGRAM', 'PROGRAM.exe' -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $elements = @($commandAst.CommandElements | Where-Object { $_.Extent.EndOffset -lt $cursorPosition -or ($_.Extent.EndOffset -eq $cursorPosition -and -not $wordToComplete) })
    $words = @($elements | Select-Object -Skip 1 | ForEach-Object { $_.Extent.Text.Trim([char[]]"'""") })
    $program = $commandAst.CommandElements[0].Extent.Text.Trim([char[]]"'""")
    & $program __complete powershell @words "+$wordToComplete" 2>$null | ForEach-Object {
        $value, $description = $_ -split [char]9, 2
        if ($value -eq ':files' -or $value -eq ':directories') {
            [System.Management.Automation.CompletionCompleters]::CompleteFilename($wordToComplete)
        } else {
            if (-not $description) { $description = $value }
            [System.Management.Automation.CompletionResult]::new($value, $value, 'ParameterValue', $description)
        }
    }
}
`,
}

// Script writes the script that has a shell complete the command lines of a program.
func Script(w io.Writer, shell, program string) error {
	script, ok := scripts[shell]
	if !ok {
		return fmt.Errorf("no completion for the shell %q", shell)
	}
	_, err := io.WriteString(w, strings.ReplaceAll(script, "PROGRAM", program))
	return err
}

// Answer answers a script: complete gets the words without their quotes, and what it returns is written as the shell reads
// it. words begins with the name of the shell.
func Answer(w io.Writer, words []string, complete func(words []string) Completion) error {
	if len(words) == 0 {
		return nil
	}
	shell, words := words[0], words[1:]
	cut := 0
	switch shell {
	case "bash":
		words, cut = joinBash(words)
	case "powershell":
		if n := len(words); n > 0 {
			words = append(words[:n-1:n-1], strings.TrimPrefix(words[n-1], "+"))
		}
	}
	c := complete(words)
	var out strings.Builder
	for _, candidate := range c.Candidates {
		out.WriteString(line(shell, candidate.Value[min(cut, len(candidate.Value)):], candidate.Description) + "\n")
	}
	if c.Files {
		out.WriteString(files + "\n")
	}
	if c.Directories {
		out.WriteString(directories + "\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// joinBash joins the words that bash has split at = and :, and takes the quotes off. cut is how much of the last word
// stands before the part that bash completes.
func joinBash(pieces []string) (words []string, cut int) {
	isBreak := func(piece string) bool { return piece != "" && strings.Trim(piece, "=:") == "" }
	for i, piece := range pieces {
		text := unquote(piece)
		if n := len(words); n > 0 && (isBreak(piece) || isBreak(pieces[i-1])) {
			cut = len(words[n-1])
			words[n-1] += text
		} else {
			cut = 0
			words = append(words, text)
		}
		if isBreak(piece) {
			cut = len(words[len(words)-1]) // Bash completes the empty text after it.
		}
	}
	return words, cut
}

// unquote takes off the quotes of a word of a shell, whose last one may be open.
func unquote(word string) string {
	var out strings.Builder
	var quote rune
	escaped := false
	for _, r := range word {
		switch {
		case escaped:
			out.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped = true
		case quote == r:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote = r
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

// line returns the line by which a shell's script reads a candidate.
func line(shell, value, description string) string {
	switch shell {
	case "bash":
		return escape(value, `\`, " \t\\'\"`$&|;<>()*?[]{}!#~")
	case "zsh":
		value = escape(value, `\`, `:\`)
		if description == "" {
			return value
		}
		return value + ":" + description
	case "powershell":
		if strings.ContainsAny(value, " '\"`$&|;<>(){}@#,") {
			value = "'" + strings.ReplaceAll(value, "'", "''") + "'"
		}
	}
	if description == "" {
		return value
	}
	return value + "\t" + description
}

// escape puts prefix before each of some characters.
func escape(text, prefix, characters string) string {
	var out strings.Builder
	for _, r := range text {
		if strings.ContainsRune(characters, r) {
			out.WriteString(prefix)
		}
		out.WriteRune(r)
	}
	return out.String()
}
