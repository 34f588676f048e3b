package update_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/clients/agent/update"
)

func TestFind_TakesTheNewestOrTheOneAskedFor(t *testing.T) {
	key, private := newKey(t)
	r := release{}
	for _, name := range []string{
		"eclitunnel_0.9.0_linux_amd64.tar.gz", "eclitunnel_0.10.0_linux_amd64.tar.gz", "eclitunnel_0.10.0-rc.1_linux_amd64.tar.gz",
		"eclitunnel_0.10.0_windows_amd64.zip", "eclitunnel_0.11.0_linux_armv7.tar.gz",
		"eclitunneld_0.12.0_linux_amd64.tar.gz", "eclitunnel_0.13.0_linux_amd64.deb", "eclitunnel_new_linux_amd64.tar.gz",
	} {
		r[name] = []byte(name)
	}
	r.sum(private)
	for _, c := range []struct{ platform, version, want string }{
		{"linux_amd64", "", "eclitunnel_0.10.0_linux_amd64.tar.gz"},
		{"linux_amd64", "v0.9.0", "eclitunnel_0.9.0_linux_amd64.tar.gz"},
		{"linux_amd64", "0.10.0-rc.1", "eclitunnel_0.10.0-rc.1_linux_amd64.tar.gz"},
		{"linux_amd64", "new", "eclitunnel_new_linux_amd64.tar.gz"},
		{"windows_amd64", "", "eclitunnel_0.10.0_windows_amd64.zip"},
		{"linux_armv7", "", "eclitunnel_0.11.0_linux_armv7.tar.gz"},
		{"linux_arm64", "", ""},
		{"linux_amd64", "0.12.0", ""},
		{"linux_amd64", "0.13.0", ""},
	} {
		found, err := update.Find(t.Context(), r.download, update.Query{Key: key, Platform: c.platform, Version: c.version})
		if found.Archive != c.want || (c.want == "") != errors.Is(err, update.ErrNotOffered) || found.Signed != (c.want != "") {
			t.Errorf("%s %s: %+v, %v; want %q", c.platform, c.version, found, err, c.want)
		}
	}
}

func TestFind_BelievesNothingThatTheKeyHasNotSigned(t *testing.T) {
	key, private := newKey(t)
	_, foreign := newKey(t)
	for name, c := range map[string]struct {
		change func(release)
		query  update.Query
		want   error
	}{
		"signed":                {func(release) {}, update.Query{Key: key}, nil},
		"another key":           {func(r release) { r.sum(foreign) }, update.Query{Key: key}, update.ErrSignature},
		"no signature":          {func(r release) { delete(r, "SHA256SUMS.sig") }, update.Query{Key: key}, update.ErrSignature},
		"a part of a signature": {func(r release) { r["SHA256SUMS.sig"] = r["SHA256SUMS.sig"][:63] }, update.Query{Key: key}, update.ErrSignature},
		"a line more": {func(r release) {
			r["SHA256SUMS"] = append(r["SHA256SUMS"], strings.Repeat("0", 64)+"  eclitunnel_9.9.9_linux_amd64.tar.gz\n"...)
		}, update.Query{Key: key}, update.ErrSignature},
		"unsigned although there is a key": {func(r release) { delete(r, "SHA256SUMS.sig") }, update.Query{Key: key, Unsigned: true}, update.ErrSignature},
		"no key":                           {func(release) {}, update.Query{}, update.ErrNoKey},
		"no key, with consent":             {func(r release) { delete(r, "SHA256SUMS.sig") }, update.Query{Unsigned: true}, nil},
	} {
		r := of(t, "1.2.3").sum(private)
		c.change(r)
		found, err := update.Find(t.Context(), r.download, c.query)
		if !errors.Is(err, c.want) || (err == nil) != (found.Version == "1.2.3") || found.Signed && !c.query.Key.Known() {
			t.Errorf("%s: %+v, %v; want %v", name, found, err, c.want)
		}
	}
}

func TestParseKey_RefusesWhatIsNone(t *testing.T) {
	for _, text := range []string{"x", "AAAA", strings.Repeat("A", 44)} {
		if key, err := update.ParseKey(text); err == nil || key.Known() {
			t.Errorf("%q: no error", text)
		}
	}
	if key, err := update.ParseKey(""); err != nil || key.Known() {
		t.Errorf("none: %v", err)
	}
}

func TestNewer_IsThatOfSemanticVersioning(t *testing.T) {
	for _, c := range []struct {
		version, than string
		want          bool
	}{
		{"0.10.0", "0.9.0", true},
		{"v0.1.1", "0.1.0", true},
		{"0.1.0", "0.1.0-rc.1", true},
		{"0.1.0", "dev", true},
		{"0.1.0", "", true},
		{"0.1.0", "0.1.0", false},
		{"0.1.0", "v0.1.0", false},
		{"0.1.0-rc.1", "0.1.0", false},
		{"0.9.0", "0.10.0", false},
		{"dev", "0.1.0", false},
		{"dev", "", false},
	} {
		if got := update.Newer(c.version, c.than); got != c.want {
			t.Errorf("%q than %q: %v", c.version, c.than, got)
		}
	}
}
