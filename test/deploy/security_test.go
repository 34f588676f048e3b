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
)

// tests maps the name of each Go test and fuzz target to the directories that have one of that name.
func tests(t *testing.T) map[string][]string {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(\w+ \*testing\.[TF]\)`)
	found := map[string][]string{}
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == "node_modules" || entry.Name() == ".git") {
			return filepath.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(file, "_test.go") {
			return nil
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		for _, match := range declared.FindAllStringSubmatch(string(content), -1) {
			found[match[1]] = append(found[match[1]], path.Dir(filepath.ToSlash(name)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// citation is a package, or a test, which an ellipsis makes the beginning of names.
var citation = regexp.MustCompile("`([a-z][\\w/]*)`|\\b((?:Test|Fuzz)[A-Z]\\w*)(…?)")

// cited checks the tests that a text names, each in the package named before it if there is one, and returns
// how many it names.
func cited(t *testing.T, known map[string][]string, page, text string) (count int) {
	t.Helper()
	dir := ""
	for _, match := range citation.FindAllStringSubmatch(text, -1) {
		if match[1] != "" {
			if info, err := os.Stat(filepath.Join(root, match[1])); err == nil && info.IsDir() {
				dir = match[1]
			}
			continue
		}
		count++
		exists := false
		for name, dirs := range known {
			if (name == match[2] || match[3] != "" && strings.HasPrefix(name, match[2])) && (dir == "" || slices.Contains(dirs, dir)) {
				exists = true
			}
		}
		if !exists {
			t.Errorf("%s names the test %s, which is not in %s", page, match[2], dir)
		}
	}
	return count
}

func TestDocuments_NameTestsThatThereAre(t *testing.T) {
	known, count := tests(t), 0
	for _, d := range allDocuments(t) {
		if d.Path == "CONTRIBUTING.md" { // Its names are examples.
			continue
		}
		for _, line := range d.Paragraphs {
			count += cited(t, known, d.Path, line)
		}
	}
	if count == 0 {
		t.Error("no test was found")
	}
}

// withoutTest are threats of docs/security.md against which nothing is done, as their rows say, and one whose test
// is missing.
var withoutTest = []string{
	"short-lived and sender-constrained tokens, trusted devices and networks",
	"a provider that redirects the panel, to learn its secret or to reach its network",
}

func TestSecurityPage_EveryThreatHasATest(t *testing.T) {
	known, rows := tests(t), 0
	above := 0 // The tests of the row above.
	for number, line := range strings.Split(read(t, "docs", "security.md"), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 3 || strings.HasPrefix(line, "|---") {
			above = 0
			continue
		}
		cells = cells[1 : len(cells)-1]
		for i, cell := range cells {
			cells[i] = strings.TrimSpace(cell)
		}
		if cells[len(cells)-1] == "test" || slices.Contains(withoutTest, cells[0]) {
			continue
		}
		rows++
		if len(cells) != 3 || slices.Contains(cells, "") {
			t.Errorf("docs/security.md:%d has an empty cell, or not three: %q", number+1, cells)
			continue
		}
		count := cited(t, known, "docs/security.md", cells[2])
		if strings.HasPrefix(cells[2], "the same") {
			count += above
		}
		if above = count; count == 0 {
			t.Errorf("docs/security.md:%d: no test shows what stops %q", number+1, cells[0])
		}
	}
	if rows < 60 {
		t.Errorf("%d rows were found", rows)
	}
}
