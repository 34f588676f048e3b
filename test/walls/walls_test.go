package walls

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/eclitunnel/eclitunnel"

// goPackage is what is read here of `go list -json`.
type goPackage struct {
	ImportPath string
	Imports    []string
}

// list runs go list at the module's root; paths of this module are those of their directories.
func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Imports"}, args...)...)
	cmd.Dir = "../.."
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", strings.Join(args, " "), err, problems.String())
	}
	var packages []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = local(p.ImportPath)
		for i := range p.Imports {
			p.Imports[i] = local(p.Imports[i])
		}
		packages = append(packages, p)
	}
}

// local shortens a package of this module to its directory: "./relay/wire", "." for the root.
func local(importPath string) string {
	if importPath == module {
		return "."
	}
	if dir, ok := strings.CutPrefix(importPath, module+"/"); ok {
		return "./" + dir
	}
	return importPath
}

// matches reports whether a pattern, which may end in "/...", stands for a package.
func matches(importPath, pattern string) bool {
	tree, ok := strings.CutSuffix(pattern, "/...")
	return importPath == tree || ok && strings.HasPrefix(importPath, tree+"/")
}

// matchesAny reports whether one of the patterns, with spaces between them, does.
func matchesAny(importPath, patterns string) bool {
	return slices.ContainsFunc(strings.Fields(patterns), func(p string) bool { return matches(importPath, p) })
}

func TestRooms_ImportWhatTheTableAllows(t *testing.T) {
	used := map[string]bool{}
	for _, p := range list(t, "./...") {
		at := slices.IndexFunc(rooms, func(r room) bool { return matches(p.ImportPath, r.path) })
		if at < 0 {
			t.Errorf("%s is in no room: add it to rooms.go, then run go test ./test/walls -update", p.ImportPath)
			continue
		}
		used[rooms[at].path] = true
		for _, imported := range p.Imports {
			if matches(imported, "./...") || imported == "." {
				if !matchesAny(imported, rooms[at].imports) {
					t.Errorf("%s imports %s", p.ImportPath, imported)
				}
			}
		}
	}
	for _, r := range rooms {
		if !used[r.path] {
			t.Errorf("there is no package in room %s", r.path)
		}
	}
}

func TestForeignPackages_EnterWhereTheTableAllows(t *testing.T) {
	for _, p := range list(t, "./...") {
		for _, imported := range p.Imports {
			for _, w := range walls {
				if matches(imported, w.pkg) && !matchesAny(p.ImportPath, w.rooms) {
					t.Errorf("%s imports %s: %s", p.ImportPath, imported, w.why)
				}
			}
		}
	}
}

func TestAgentBinary_LinksNothingOfThePanel(t *testing.T) {
	forbidden := strings.Join(notLinked, " ")
	for _, p := range list(t, "-deps", agent) {
		if matchesAny(p.ImportPath, forbidden) {
			t.Errorf("the agent links %s", p.ImportPath)
		}
	}
}
