package enroll_test

import (
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/enroll"
)

// TestApprove_AcceptsTheUserCodesOfTheDocumentation holds every user code that the
// contract, the documentation or a page shows: as the code of a pending device it can
// be approved, so it is made of the letters and digits that codes are made of.
func TestApprove_AcceptsTheUserCodesOfTheDocumentation(t *testing.T) {
	r := newRules(t)
	admin, _ := r.user(t, "root@example.com", "admin")
	texts := map[string]string{"openapi.yaml": string(eclitunnel.OpenAPI)}
	root := os.DirFS("../../..")
	pages, err := fs.Glob(root, "docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	with := []string{"README.md", "server/internal/web/static/device.html"}
	for _, name := range slices.Concat(with, pages) {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	// A code in a UUID or in another word is none. Two numbers are a range of ports.
	code := regexp.MustCompile(`(?:^|[^\w-])([A-Z0-9]{4}-[A-Z0-9]{4})(?:[^\w-]|$)`)
	codes, shows := map[string]string{}, map[string]bool{}
	for name, text := range texts {
		for _, match := range code.FindAllStringSubmatch(text, -1) {
			if strings.ContainsFunc(match[1], unicode.IsLetter) {
				codes[match[1]], shows[name] = name, true
			}
		}
	}
	for _, name := range append(with, "openapi.yaml") {
		if !shows[name] {
			t.Errorf("%s has no user code", name)
		}
	}
	for _, userCode := range slices.Sorted(maps.Keys(codes)) {
		if unicode.IsDigit(rune(userCode[0])) { // Of a login.
			if _, err := r.db.CreateDeviceLogin(t.Context(), db.NewDeviceLogin{
				Client: "eclitunnel", UserCode: userCode, CodeHash: []byte(userCode), Scopes: []string{"read"},
				CreatedAt: r.now, ExpiresAt: r.now.Add(time.Minute),
			}, db.PendingLimits{}); err != nil {
				t.Fatal(err)
			}
			if _, err := r.ApproveLogin(admin, enroll.LoginApproval{UserCode: userCode}); err != nil {
				t.Errorf("%s shows the code %s, which no login can have: %v", codes[userCode], userCode, err)
			}
			continue
		}
		if _, err := r.db.CreateDevice(t.Context(), db.NewDevice{
			Name: "home", Kind: db.KindClient, UserCode: userCode, CodeHash: []byte(userCode),
			CreatedAt: r.now, ExpiresAt: r.now.Add(time.Minute),
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Approve(admin, enroll.Approval{UserCode: userCode}); err != nil {
			t.Errorf("%s shows the code %s, which no device can have: %v", codes[userCode], userCode, err)
		}
	}
}
