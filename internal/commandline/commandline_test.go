package commandline_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/eclitunnel/eclitunnel/internal/commandline"
)

// grammar is that of the program whose command lines the tests complete.
type grammar struct {
	Config string `placeholder:"FILE" help:"File with settings. It need not exist (default: none)."`
	State  string `placeholder:"DIR"`
	Quiet  bool   `short:"q" help:"Say little."`

	Open struct {
		Protocol string   `arg:"" enum:"tcp,udp,tcp+udp"`
		Port     string   `arg:""`
		Level    string   `enum:"low,high," default:"" help:"How much."`
		Address  bool     `negatable:"" default:"true" help:"Show addresses."`
		Label    []string `placeholder:"KEY=VALUE" help:".dots and 'quotes' at the start - and hyphens \\ too."`
	} `cmd:"" help:"Open a port. It waits."`
	Close struct {
		Name []string `arg:""`
	} `cmd:"" aliases:"shut" help:"Close ports."`
	Keys struct {
		List struct{} `cmd:"" help:"List keys."`
		Drop struct{} `cmd:"" help:"Drop a key."`
	} `cmd:"" help:"Manage keys."`
	Secret struct{} `cmd:"" hidden:"" help:"Nobody should see it."`
}

func model(t testing.TB) *kong.Application {
	t.Helper()
	parser, err := kong.New(&grammar{}, kong.Name("sample"), kong.Description("A program.\n\nFirst words.\n\n    an example -1\n    .second\n\nLast."))
	if err != nil {
		t.Fatal(err)
	}
	return parser.Model
}

// names are those that arguments of close can have at run time.
func names(_ *kong.Node, value *kong.Value, given map[string]string) []commandline.Candidate {
	if value.Name != "name" {
		return nil
	}
	return []commandline.Candidate{{Value: "survival"}, {Value: "my game", Description: "udp a:b"}, {Value: "a:b=c"}, {Value: "it's $HOME"}, {Value: "bad\nline"}, {Value: "by-" + given["config"]}}
}

func TestMain(m *testing.M) {
	if os.Getenv("SAMPLE_AS_PROGRAM") == "" {
		os.Exit(m.Run())
	}
	parser, err := kong.New(&grammar{}, kong.Name("sample"))
	if err == nil {
		err = commandline.Answer(os.Stdout, os.Args[2:], func(words []string) commandline.Completion {
			return commandline.Complete(parser.Model, words, names)
		})
	}
	if err != nil {
		panic(err)
	}
}

// cases are command lines, of which the last word is being completed, and what it can become.
var cases = map[string]string{
	"":                            "close keys open",
	"op":                          "open",
	"no":                          "",
	"open ":                       "tcp tcp+udp udp",
	"open tcp 1 ":                 "",
	"open t":                      "tcp tcp+udp",
	"open --le":                   "--level",
	"open --level ":               "high low",
	"open --level h":              "high",
	"open --level high tc":        "tcp tcp+udp",
	"open --level=high --le":      "",
	"open --label a=b --la":       "--label",
	"open --quiet --q":            "",
	"open -q t":                   "tcp tcp+udp",
	"open --no-a":                 "--no-address",
	"open --no-address --addr":    "",
	"open -- --le":                "",
	"keys ":                       "drop list",
	"shut s":                      "survival",
	"close one s":                 "survival",
	"--config x.conf close by":    "by-x.conf",
	"--config=y close by":         "by-y",
	"keys --config":               "--config",
	"--unknown open u":            "udp",
	"sec":                         "",
	"keys list --stat":            "--state",
	"--config open open --level ": "high low",
}

func words(line string) []string { return strings.Split(line, " ") }

func TestComplete_OffersWhatTheGrammarTakes(t *testing.T) {
	for line, want := range cases {
		var got []string
		for _, c := range commandline.Complete(model(t), words(line), names).Candidates {
			got = append(got, c.Value)
		}
		if slices.Sort(got); strings.Join(got, " ") != want {
			t.Errorf("%q offers %q, want %q", line, got, want)
		}
	}
	for line, want := range map[string][2]bool{
		"--config ": {true, false}, "open --config x": {true, false}, "--state=a": {false, true}, "--state ": {false, true}, "--level ": {},
	} {
		if c := commandline.Complete(model(t), words(line), nil); c.Files != want[0] || c.Directories != want[1] {
			t.Errorf("%q: files %t, directories %t", line, c.Files, c.Directories)
		}
	}
	c := commandline.Complete(model(t), []string{"o"}, nil)
	if len(c.Candidates) != 1 || c.Candidates[0].Description != "Open a port" {
		t.Errorf("described as %+v", c.Candidates)
	}
	if c = commandline.Complete(model(t), nil, nil); len(c.Candidates) != 3 {
		t.Errorf("no words offer %+v", c.Candidates)
	}
}

// answers writes a shell's script and the program sample into a directory, has the shell read the script after before, and
// returns what each of commands then prints, line by line, sorted.
func answers(t *testing.T, name, before string, commands []string, args ...string) (printed [][]string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	if err := commandline.Script(&script, name, "sample"); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		filepath.Join(dir, "script"): script.String(),
		filepath.Join(dir, "sample"): "#!/bin/sh\nSAMPLE_AS_PROGRAM=1 exec '" + program + "' \"$@\"\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	const end = "@@@\n"
	source := before + "\nsource ./script\necho '" + end + "'\n" + strings.Join(commands, "\necho '"+end+"'\n")
	cmd := exec.CommandContext(t.Context(), path, append(args, "-c", source)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir, "PATH="+dir+":"+os.Getenv("PATH"), "LC_ALL=C.UTF-8", "GORACE=atexit_sleep_ms=0")
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, output)
	}
	for _, text := range strings.Split(string(output), end)[1:] {
		lines := strings.Split(strings.Trim(text, "\n"), "\n")
		slices.Sort(lines)
		printed = append(printed, lines)
	}
	if len(printed) != len(commands) {
		t.Fatalf("%d answers to %d commands: %s", len(printed), len(commands), output)
	}
	return printed
}

// offer is a command line and what its last word becomes.
type offer struct {
	line string
	want []string
}

// check has a shell answer each line and compares.
func check(t *testing.T, name, before string, offers []offer, command func(line string) string, args ...string) {
	t.Helper()
	var commands []string
	for _, o := range offers {
		commands = append(commands, command(o.line))
	}
	for i, got := range answers(t, name, before, commands, args...) {
		if !slices.Equal(got, offers[i].want) {
			t.Errorf("%q offers %q, want %q", offers[i].line, got, offers[i].want)
		}
	}
}

func TestScript_OfBash(t *testing.T) {
	const before = "compopt() { echo option $*; }"
	check(t, "bash", before, []offer{
		{"open --l", []string{"--label", "--level"}},
		{"open --level = h", []string{"high"}}, // Bash splits at = and :.
		{"open --level =", []string{"high", "low"}},
		{"close a : b = ", []string{"c"}},
		{"close m", []string{`my\ game`}},
		{"close it", []string{`it\'s\ \$HOME`}},
		{`close "su`, []string{"survival"}},
		{"close 'my ", []string{`my\ game`}},
		{"--config = z close by", []string{"by-z"}},
		{"--config ", []string{"option -o default"}},
	}, func(line string) string {
		var quoted []string
		for _, word := range splitTyped(line) {
			quoted = append(quoted, "'"+strings.ReplaceAll(word, "'", `'\''`)+"'")
		}
		return "COMP_WORDS=(sample " + strings.Join(quoted, " ") + "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _sample sample; printf '%s\n' \"${COMPREPLY[@]}\""
	}, "--norc")
}

// splitTyped splits a line as a shell has typed words: a quote keeps what follows together.
func splitTyped(line string) []string {
	if i := strings.IndexAny(line, `'"`); i >= 0 {
		return append(words(strings.TrimSuffix(line[:i], " ")), line[i:])
	}
	return words(line)
}

func TestScript_OfZsh(t *testing.T) {
	const before = `compdef() {}
_describe() { print -rl -- ${(P)2}; }
_files() { print -- files $*; }
compset() { print -- compset $*; }`
	check(t, "zsh", before, []offer{
		{"open --l", []string{`--label:.dots and 'quotes' at the start - and hyphens \ too`, "--level:How much"}},
		{"open --level=h", []string{"--level=high", "compset -P *="}},
		{"close a", []string{`a\:b=c`}},
		{`close "my"`, []string{"my game:udp a:b"}},
		{"--config=a", []string{"compset -P *=", "files"}},
	}, func(line string) string {
		return "words=(sample " + line + "); CURRENT=$#words; PREFIX=${words[-1]}; _sample; true"
	}, "-f")
}

func TestScript_OfFish(t *testing.T) {
	check(t, "fish", "", []offer{
		{"open --le", []string{"--level\tHow much"}},
		{"open --level=", []string{"--level=high", "--level=low"}},
		{"close m", []string{"my game\tudp a:b"}},
		{"--config scr", []string{"script"}},
	}, func(line string) string { return "complete -C 'sample " + line + "'" })
}

func TestAnswer_ToPowerShell(t *testing.T) {
	for line, want := range map[string]string{
		"open +--le": "--level\tHow much\n", "open --level +": "low\nhigh\n", "close +m": "'my game'\tudp a:b\n", "close +it": "'it''s $HOME'\n", "--config +": ":files\n",
	} {
		var out strings.Builder
		err := commandline.Answer(&out, append([]string{"powershell"}, words(line)...), func(words []string) commandline.Completion {
			return commandline.Complete(model(t), words, names)
		})
		if err != nil || out.String() != want {
			t.Errorf("%q answers %q (%v)", line, out.String(), err)
		}
	}
	for _, name := range commandline.Shells {
		var script strings.Builder
		if err := commandline.Script(&script, name, "sample"); err != nil || strings.Contains(script.String(), "PROGRAM") || !strings.Contains(script.String(), commandline.Word+" "+name) {
			t.Errorf("%s: %v\n%s", name, err, script.String())
		}
	}
	if err := commandline.Script(&strings.Builder{}, "tcsh", "sample"); err == nil {
		t.Error("there is a script for tcsh")
	}
}

func TestManual_IsWellFormed(t *testing.T) {
	manual := commandline.Manual{
		Version: "1.2.3", Date: time.Unix(1_767_225_600, 0), ExitStatus: "0  success\n 12  no - luck\n",
		Environment: func(flag *kong.Flag) string { return "SAMPLE_" + strings.ToUpper(flag.Name) },
	}
	dir := filepath.Join(t.TempDir(), "man")
	if err := manual.Write(model(t), dir); err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, page := range pages {
		files = append(files, filepath.Base(page))
	}
	if want := "sample-close.1 sample-keys-drop.1 sample-keys-list.1 sample-open.1 sample.1"; strings.Join(files, " ") != want {
		t.Errorf("pages %v", files)
	}
	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if output, err := exec.CommandContext(t.Context(), mandoc, append([]string{"-T", "lint"}, pages...)...).CombinedOutput(); err != nil || len(output) > 0 {
		t.Errorf("%v\n%s", err, output)
	}
	text, err := exec.CommandContext(t.Context(), mandoc, "-T", "ascii", "-O", "width=100", filepath.Join(dir, "sample-open.1"), filepath.Join(dir, "sample.1")).Output()
	if err != nil {
		t.Fatal(err)
	}
	bare := strings.Join(strings.Fields(unstruck(string(text))), " ")
	for _, want := range []string{
		"sample-open - Open a port. It waits", "sample open <protocol> <port> [flags]", "--label=KEY=VALUE,... .dots and 'quotes' at the start - and hyphens \\ too ($SAMPLE_LABEL).",
		"--[no-]address Show addresses ($SAMPLE_ADDRESS).", "12 no - luck", "sample 1.2.3 2026-01-01", "First words. an example -1 .second Last.", "sample-keys-drop(1) Drop a key.",
	} {
		if !strings.Contains(bare, want) {
			t.Errorf("%q is missing from\n%s", want, bare)
		}
	}
	if strings.Contains(bare, "Nobody should see it") {
		t.Error("a hidden command is shown")
	}
}

// unstruck removes the overstrikes by which terminals of paper show bold and underlined text.
func unstruck(text string) string {
	var out []rune
	for _, r := range text {
		if r == '\b' {
			out = out[:len(out)-1]
			continue
		}
		out = append(out, r)
	}
	return string(out)
}
