package walls

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what is generated from rooms.go")

// What is generated lies between these words in two files; what introduces and
// ends a comment differs between them.
const (
	begin = "begin: go test ./test/walls -update"
	end   = "end: go test ./test/walls -update"
)

func TestRooms_LinterAndDocumentationAreThoseOfTheTable(t *testing.T) {
	for path, want := range map[string]string{
		"../../.golangci.yml":        depguard(),
		"../../docs/architecture.md": tables(),
	} {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		before, after, ok := strings.Cut(string(content), begin)
		line, rest, ok2 := strings.Cut(after, "\n")
		got, _, ok3 := strings.Cut(rest, end)
		if !ok || !ok2 || !ok3 {
			t.Fatalf("%s lacks the lines between which the rules stand", path)
		}
		got = got[:strings.LastIndex(got, "\n")+1] // What follows introduces the comment.
		if got == want {
			continue
		}
		if !*update {
			t.Errorf("%s differs from rooms.go: run go test ./test/walls -update", path)
			continue
		}
		written := before + begin + line + "\n" + want + strings.TrimPrefix(rest, got)
		if err := os.WriteFile(path, []byte(written), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// depguard is the linter's rules. In every rule lax: what is not denied is
// allowed, and the longer match wins.
func depguard() string {
	var b strings.Builder
	rule := func(name string, files []string, allow []string, deny, why string) {
		fmt.Fprintf(&b, "        %s:\n          list-mode: lax\n          files: [%s]\n", ruleName.Replace(name), quoted(files))
		if len(allow) > 0 {
			fmt.Fprintf(&b, "          allow: [%s]\n", quoted(allow))
		}
		fmt.Fprintf(&b, "          deny: [{ pkg: %q, desc: %q }]\n", deny, why)
	}
	for _, w := range walls {
		files := []string{"**/*.go"}
		for _, room := range strings.Fields(w.rooms) {
			files = append(files, "!"+glob(room))
		}
		if w.tests {
			files = append(files, "!$test")
		}
		name, tree := strings.CutSuffix(w.pkg, "/...")
		deny := name
		if !tree {
			deny += "$"
		}
		rule(name, files, nil, deny, w.why)
	}
	for i, r := range rooms {
		files := []string{glob(r.path)}
		for _, earlier := range rooms[:i] {
			if matches(strings.TrimSuffix(earlier.path, "/..."), r.path) {
				files = append(files, "!"+glob(earlier.path))
			}
		}
		var allow []string
		for _, imported := range strings.Fields(r.imports) {
			allow = append(allow, prefixes(imported)...)
		}
		why := fmt.Sprintf("Of this module, %s may import %s (test/walls/rooms.go).", plain(r.path), enumerate(r.imports, plain))
		rule("room-"+cmp.Or(strings.TrimPrefix(strings.TrimPrefix(r.path, "."), "/"), "contract"), append(files, "!$test"), allow, module, why)
	}
	return b.String()
}

// ruleName makes a rule's name of a path: the linter splits names at dots.
var ruleName = strings.NewReplacer("/...", "-tree", "/", "-", ".", "-")

// glob is the files of a room.
func glob(room string) string {
	if tree, ok := strings.CutSuffix(room, "/..."); ok {
		return "${base-path}" + strings.TrimPrefix(tree, ".") + "/**.go"
	}
	return "${base-path}" + strings.TrimPrefix(room, ".") + "/*.go"
}

// prefixes are what the linter compares an import with; one that ends in $ is
// the whole of it.
func prefixes(pattern string) []string {
	tree, ok := strings.CutSuffix(pattern, "/...")
	path := module + strings.TrimPrefix(tree, ".")
	if !ok {
		return []string{path + "$"}
	}
	return []string{path + "$", path + "/"}
}

func quoted(all []string) string {
	var parts []string
	for _, s := range all {
		parts = append(parts, fmt.Sprintf("%q", s))
	}
	return strings.Join(parts, ", ")
}

// tables are those of docs/architecture.md.
func tables() string {
	var b strings.Builder
	b.WriteString("\n| package | task | of this module it may import |\n|---|---|---|\n")
	code := func(s string) string { return "`" + plain(s) + "`" }
	for _, r := range rooms {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", code(r.path), r.task, enumerate(r.imports, code))
	}
	b.WriteString("\n| package of others | imported only in | why |\n|---|---|---|\n")
	for _, w := range walls {
		in := enumerate(w.rooms, code)
		if w.tests {
			in += "; tests"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", code(w.pkg), in, w.why)
	}
	b.WriteString("\n")
	return b.String()
}

// plain is how people write a path: relay/…
func plain(path string) string {
	return strings.ReplaceAll(strings.TrimPrefix(path, "./"), "/...", "/…")
}

// enumerate lists paths with commas between them.
func enumerate(paths string, each func(string) string) string {
	var parts []string
	for _, p := range strings.Fields(paths) {
		parts = append(parts, each(p))
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}
