package deploy

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables of docs/settings.md from the programs' --help")

// flagRow is a flag as the help of a command lists it and as a table shows it.
type flagRow struct{ flag, variable, unit, meaning, fallback string }

// String returns the line of the table.
func (r flagRow) String() string {
	return fmt.Sprintf("| %s | %s | %s | %s | %s |\n",
		r.flag, r.variable, r.unit, strings.ReplaceAll(r.meaning, "|", `\|`), r.fallback)
}

// hint says how a page that differs is put right.
const hint = "run make generate, which writes the tables, and commit docs/settings.md"

const tableHead = "| flag | environment | value | meaning | default |\n|---|---|---|---|---|\n"

// values says what each placeholder in the help stands for.
var values = map[string]string{
	"":                 "boolean",
	"ADDRESS":          "IP address",
	"DIR":              "path",
	"DURATION":         "duration",
	"EMAIL":            "email address",
	"FILE":             "path",
	"FIRST-LAST":       "port range",
	"FORMAT":           "name",
	"HOST":             "host name or IP address",
	"HOST[:PORTS],...": "list of hosts",
	"PORTS,...":        "list of ports",
	"HOST:PORT":        "host and port",
	"ID":               "id",
	"KEY=VALUE":        "label",
	"KEY[=VALUE]":      "label",
	"KIND":             "name",
	"LEVEL":            "name",
	"LIST":             "list",
	"N":                "port",
	"NAME":             "name",
	"NAME,...":         "list of names",
	"NETWORK,...":      "list of addresses and CIDR prefixes",
	"ORIGIN,...":       "list of origins",
	"STRING":           "text",
	"TAG":              "text",
	"URL":              "URL",
	"VERSION":          "version",
	"URL,...":          "list of URLs",
}

var (
	flagLine      = regexp.MustCompile(`(?m)^ {2,}(?:-[a-gi-z], )?--(\S+) {2,}(.+)$`)
	variableText  = regexp.MustCompile(` \(\$(ECLITUNNEL_[A-Z0-9_]+)\)\.?$`)
	fallbackText  = regexp.MustCompile(` \(default: ([^()]+)\)`)
	quotedAddress = regexp.MustCompile(`^"[0-9.]+"$`)
	quoted        = regexp.MustCompile(`^"\w+"$`)
	seconds       = regexp.MustCompile(`^[0-9]+s$`)
	commandLine   = regexp.MustCompile(`(?m)^  ([a-z]+(?: [a-z]+)*) {2,}\S`)
)

// flagRows returns the flags that the help of a command lists, without --help.
func flagRows(t *testing.T, help string) (rows []flagRow) {
	t.Helper()
	for _, line := range flagLine.FindAllStringSubmatch(help, -1) {
		name, placeholder, _ := strings.Cut(line[1], "=")
		unit, ok := values[placeholder]
		switch {
		case quotedAddress.MatchString(placeholder): // The help shows the default in place of a placeholder.
			unit = values["HOST"]
		case quoted.MatchString(placeholder):
			unit = values["NAME"]
		case seconds.MatchString(placeholder):
			unit = values["DURATION"]
		case !ok:
			t.Errorf("no unit is known for %s of --%s; add it to values", placeholder, name)
		}
		row := flagRow{flag: "`--" + name + "`", unit: unit, meaning: line[2], variable: "none", fallback: "none"}
		if placeholder == "" {
			row.fallback = "`false`"
		}
		if found := variableText.FindStringSubmatch(row.meaning); found != nil {
			row.variable = "`" + found[1] + "`"
			row.meaning = strings.TrimSuffix(row.meaning, found[0])
		}
		if found := fallbackText.FindStringSubmatch(row.meaning); found != nil {
			row.fallback = found[1]
			if prose := strings.Contains(found[1], " ") || found[1] == "none"; !prose {
				row.fallback = "`" + found[1] + "`"
			}
			row.meaning = strings.Replace(row.meaning, found[0], "", 1)
		}
		row.meaning = strings.TrimSuffix(row.meaning, ".")
		rows = append(rows, row)
	}
	return rows
}

// command is a command of one of the programs.
type command struct {
	name   string // With its program's: "eclitunnel run".
	help   string
	shares bool // Its table also lists the flags that the program's other commands share.
}

// allCommands returns every command of both programs, of each program first the one
// that lists the shared flags.
func allCommands(t *testing.T) (all []command) {
	t.Helper()
	t.Setenv("COLUMNS", "1000")            // One line for each flag.
	t.Setenv("XDG_STATE_HOME", "/var/lib") // The same default data directory for root and everyone else.
	bin := t.TempDir()
	run(t, ".", "go", "build", "-buildvcs=false", "-o", bin+string(filepath.Separator), "./server/eclitunneld", "./clients/eclitunnel")
	for _, program := range []struct{ name, shares string }{{"eclitunneld", "serve"}, {"eclitunnel", ""}} {
		path := filepath.Join(bin, program.name)
		help := run(t, ".", path, "--help")
		_, listed, _ := strings.Cut(help, "\nCommands:\n")
		names := []string{program.shares}
		for _, line := range commandLine.FindAllStringSubmatch(listed, -1) {
			if line[1] != program.shares {
				names = append(names, line[1])
			}
		}
		if len(names) < 3 {
			t.Fatalf("the help of %s lists no commands:\n%s", program.name, help)
		}
		for _, name := range names {
			all = append(all, command{
				name:   strings.TrimSpace(program.name + " " + name),
				help:   run(t, ".", path, append(strings.Fields(name), "--help")...),
				shares: name == program.shares,
			})
		}
	}
	return all
}

// withTables returns the page with each command's table as the help has it.
func withTables(t *testing.T, page string, commands []command) string {
	t.Helper()
	var shared []flagRow
	ofGroup := map[string][]flagRow{} // By the name without its last word: what the group's first command has.
	for _, c := range commands {
		rows := flagRows(t, c.help)
		if c.shares {
			shared = rows
		} else {
			rows = slices.DeleteFunc(rows, func(r flagRow) bool { return slices.Contains(shared, r) })
			words := strings.Fields(c.name)
			group := strings.Join(words[:len(words)-1], " ")
			if before, found := ofGroup[group]; found && len(words) > 2 {
				rows = slices.DeleteFunc(rows, func(r flagRow) bool { return slices.Contains(before, r) })
			} else {
				ofGroup[group] = rows
			}
		}
		if !strings.Contains(page, "`"+c.name+"`") {
			t.Errorf("docs/settings.md does not name %s", c.name)
		}
		begin, end := "<!-- flags of "+c.name+" -->\n", "<!-- end -->"
		before, rest, opened := strings.Cut(page, begin)
		if len(rows) == 0 {
			if opened {
				t.Errorf("docs/settings.md has a table for %s, which has no flags of its own", c.name)
			}
			continue
		}
		_, after, closed := strings.Cut(rest, end)
		if !opened || !closed {
			t.Errorf("docs/settings.md has no place for the flags of %s: add %q and %q, then %s", c.name, begin, end, hint)
			continue
		}
		table := tableHead
		for _, row := range rows {
			table += row.String()
		}
		page = before + begin + "\n" + table + "\n" + end + after
	}
	return page
}

func TestSettingsPage_IsWhatTheProgramsOffer(t *testing.T) {
	commands := allCommands(t)
	page := read(t, "docs", "settings.md")
	fresh := withTables(t, page, commands)
	if *update && !t.Failed() {
		if err := os.WriteFile(filepath.Join(root, "docs", "settings.md"), []byte(fresh), 0o644); err != nil {
			t.Fatal(err)
		}
		page = fresh
	}
	have, want := strings.Split(page, "\n"), strings.Split(fresh, "\n")
	for _, line := range want {
		if !slices.Contains(have, line) {
			t.Errorf("docs/settings.md lacks %s", line)
		}
	}
	for _, line := range have {
		if !slices.Contains(want, line) {
			t.Errorf("docs/settings.md has %s, which no --help offers", line)
		}
	}
	if page != fresh {
		t.Errorf("docs/settings.md differs from --help: %s", hint)
	}

	// A secret is no flag; the help names its variable in its text.
	documented, offered := map[string]bool{}, map[string]bool{}
	for _, variable := range setting.FindAllString(page, -1) {
		documented[variable] = true
	}
	for _, c := range commands {
		for _, variable := range setting.FindAllString(c.help, -1) {
			if offered[variable] = true; !documented[variable] {
				t.Errorf("the help of %s offers %s, which docs/settings.md does not name", c.name, variable)
			}
		}
	}
	for variable := range documented {
		if !offered[variable] {
			t.Errorf("docs/settings.md names %s, which no --help offers", variable)
		}
	}
}
