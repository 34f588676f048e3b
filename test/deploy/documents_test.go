package deploy

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mvdan.cc/sh/v3/syntax"

	"github.com/eclitunnel/eclitunnel/test/lib/documents"
)

// usual are the commands that need no mention: those of POSIX and of the shell.
var usual = strings.Fields("[ cat cd chmod echo env export install mkdir printf set sh sleep test umask")

// forDevelopers are the pages that may rely on what CONTRIBUTING.md says is needed.
var forDevelopers = []string{"CONTRIBUTING.md", "docs/architecture.md", "docs/benchmarks.md", "test/README.md"}

func allDocuments(t *testing.T) (all []documents.Document) {
	t.Helper()
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		switch {
		case entry.IsDir() && (entry.Name() == "node_modules" || entry.Name() == ".git" || entry.Name() == "secrets"):
			return filepath.SkipDir
		case entry.IsDir():
			return nil
		case path.Ext(name) == ".md":
			all = append(all, documents.Page(name, read(t, name)))
		case strings.HasPrefix(name, "deploy/") && path.Ext(name) != ".json":
			all = append(all, documents.Comments(name, read(t, name)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// commandsOf returns the words of every command in a block, also of those that another
// command starts. Words that are not literal are empty.
func commandsOf(t *testing.T, d documents.Document, block string) (commands [][]string) {
	t.Helper()
	file, err := d.Parse(block)
	if err != nil {
		t.Errorf("a block that is no shell script (give it a language): %v", err)
		return nil
	}
	functions := map[string]bool{}
	syntax.Walk(file, func(node syntax.Node) bool {
		switch node := node.(type) {
		case *syntax.FuncDecl:
			functions[node.Name.Value] = true
		case *syntax.CallExpr:
			var words []string
			for _, word := range node.Args {
				words = append(words, literal(word))
			}
			commands = append(commands, started(t, d, words)...)
		}
		return true
	})
	return slices.DeleteFunc(commands, func(words []string) bool { return functions[words[0]] })
}

func literal(word *syntax.Word) string {
	if len(word.Parts) == 1 {
		if quoted, ok := word.Parts[0].(*syntax.SglQuoted); ok {
			return quoted.Value
		}
	}
	return word.Lit()
}

// started returns a command and those that sudo, env and sh start.
func started(t *testing.T, d documents.Document, words []string) (commands [][]string) {
	t.Helper()
	if len(words) == 0 {
		return nil
	}
	commands = [][]string{words}
	rest := words[1:]
	switch words[0] {
	case "sudo", "env":
		for len(rest) > 0 && (rest[0] == "" || strings.HasPrefix(rest[0], "-") || strings.Contains(rest[0], "=")) {
			if rest[0] == "-u" {
				rest = rest[1:]
			}
			rest = rest[1:]
		}
		return append(commands, started(t, d, rest)...)
	case "sh":
		if len(rest) == 2 && strings.HasSuffix(rest[0], "c") {
			return append(commands, commandsOf(t, d, rest[1])...)
		}
	}
	return commands
}

// inProject reports whether a command is a program of this project or a file of it.
func inProject(d documents.Document, command string) bool {
	if base := path.Base(command); base == "eclitunneld" || base == "eclitunnel" || strings.HasPrefix(command, "bin/") {
		return true
	}
	for _, dir := range []string{".", path.Dir(d.Path)} {
		if info, err := os.Stat(filepath.Join(root, dir, command)); err == nil && !info.IsDir() {
			return true
		}
	}
	return false
}

var need = regexp.MustCompile(`\bneed(s|ed)?\b`)

// named reports whether a paragraph says that a command is needed.
func named(d documents.Document, command string) bool {
	word := regexp.MustCompile(`(?i)\b` + regexp.QuoteMeta(command) + `\b`)
	return slices.ContainsFunc(d.Paragraphs, func(p string) bool { return need.MatchString(p) && word.MatchString(p) })
}

func TestDocuments_NameEveryProgramThatTheirCommandsNeed(t *testing.T) {
	contributing := documents.Page("CONTRIBUTING.md", read(t, "CONTRIBUTING.md"))
	count := 0
	for _, d := range allDocuments(t) {
		for _, block := range d.Blocks {
			for _, words := range commandsOf(t, d, block) {
				command := words[0]
				if command == "" || slices.Contains(usual, command) || inProject(d, command) {
					continue
				}
				count++
				if !named(d, command) && (!slices.Contains(forDevelopers, d.Path) || !named(contributing, command)) {
					t.Errorf("%s uses %s and does not say that it is needed", d.Path, command)
				}
			}
		}
	}
	if count == 0 {
		t.Error("no command was found")
	}
}

var flagName = regexp.MustCompile(`^--([a-z-]+)`)

func TestDocuments_UseCommandsAndFlagsThatThereAre(t *testing.T) {
	known, count := allCommands(t), 0
	for _, d := range allDocuments(t) {
		for _, block := range d.Blocks {
			for _, words := range commandsOf(t, d, block) {
				c, arguments, ok := called(known, words)
				if !ok {
					continue
				}
				count++
				for _, word := range arguments {
					name := flagName.FindStringSubmatch(word)
					if name != nil && !regexp.MustCompile(`(?m)^ +(-h, )?--(\[no-\])?`+name[1]+`\b`).MatchString(c.help) {
						t.Errorf("%s: %s has no flag %s", d.Path, c.name, word)
					}
				}
			}
		}
	}
	if count == 0 {
		t.Error("no command was found")
	}
}

// called returns the command of ours that words call, also in a container, whose image
// starts the program, and its arguments.
func called(known []command, words []string) (c command, arguments []string, ok bool) {
	for i, word := range words {
		program := path.Base(word)
		if word == "panel" && words[0] == "docker" {
			program = "eclitunneld"
		}
		if program != "eclitunneld" && program != "eclitunnel" {
			continue
		}
		for _, c := range known {
			name := strings.Fields(c.name)
			if end := i + len(name); name[0] == program && len(name) > 1 && end <= len(words) && slices.Equal(name[1:], words[i+1:end]) {
				return c, words[end:], true
			}
		}
	}
	return command{}, nil, false
}
