package walls

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// journeyLink is a link to a file of this module in docs/architecture.md.
var journeyLink = regexp.MustCompile(`\]\(\.\./([^)]+\.go)\)`)

func TestJourneys_EnterEveryFileOnceAndOnlyFilesThatExist(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n## Five journeys through the code\n")
	if !found {
		t.Fatal("docs/architecture.md has no section of journeys")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	journeys := strings.Split(section, "\n**")[1:]
	if len(journeys) != 5 {
		t.Fatalf("%d journeys, want 5", len(journeys))
	}
	for _, journey := range journeys {
		name, _, _ := strings.Cut(journey, "**")
		entered := map[string]bool{}
		for _, link := range journeyLink.FindAllStringSubmatch(journey, -1) {
			file := link[1]
			if entered[file] {
				t.Errorf("%s: %s is entered twice", name, file)
			}
			entered[file] = true
			if _, err := os.Stat(filepath.Join("..", "..", file)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if len(entered) < 10 {
			t.Errorf("%s enters %d files: is this still how they are listed?", name, len(entered))
		}
	}
}
