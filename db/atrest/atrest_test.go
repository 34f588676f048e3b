package atrest_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/atrest"
)

// line returns a key as a line of a key file.
func line(b byte) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32)) + "\n"
}

func keys(t *testing.T, text string) *atrest.Keys {
	t.Helper()
	k, err := atrest.ParseKeys([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeys_OpenWhatTheySealed(t *testing.T) {
	secret := bytes.Repeat([]byte{0xA5}, 32)
	old, both := keys(t, line(1)), keys(t, "# since May\r\n"+line(2)+"\n"+line(1))
	sealed := old.Seal("a", secret)
	if len(sealed) != len(secret)+atrest.Overhead || bytes.Contains(sealed, secret[:8]) {
		t.Errorf("sealed as %x", sealed)
	}
	if bytes.Equal(sealed, old.Seal("a", secret)) {
		t.Error("two seals are equal")
	}
	for name, c := range map[string]struct {
		keys    *atrest.Keys
		current bool
	}{"its key": {old, true}, "an older key of the file": {both, false}} {
		got, current, err := c.keys.Open("a", sealed)
		if err != nil || !bytes.Equal(got, secret) || current != c.current {
			t.Errorf("%s: %x, current %t, %v", name, got, current, err)
		}
	}
	if _, current, err := both.Open("a", both.Seal("a", secret)); err != nil || !current {
		t.Errorf("the first key does not seal: %t, %v", current, err)
	}
}

func TestKeys_OpenNothingElse(t *testing.T) {
	k := keys(t, line(1))
	sealed := k.Seal("a", make([]byte, 32))
	flipped := bytes.Clone(sealed)
	flipped[len(flipped)-1] ^= 1
	for name, open := range map[string]func() ([]byte, bool, error){
		"another key":  func() ([]byte, bool, error) { return keys(t, line(2)).Open("a", sealed) },
		"no key":       func() ([]byte, bool, error) { return (*atrest.Keys)(nil).Open("a", sealed) },
		"another name": func() ([]byte, bool, error) { return k.Open("b", sealed) },
		"damaged":      func() ([]byte, bool, error) { return k.Open("a", flipped) },
		"truncated":    func() ([]byte, bool, error) { return k.Open("a", sealed[:20]) },
		"empty":        func() ([]byte, bool, error) { return k.Open("a", nil) },
		"not sealed":   func() ([]byte, bool, error) { return k.Open("a", make([]byte, 32)) },
	} {
		if got, _, err := open(); !errors.Is(err, atrest.ErrKey) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
}

func TestParseKeys_NamesTheLineAndShowsNoKey(t *testing.T) {
	const short = "c2hvcnQgYnV0IHNlY3JldA=="
	for text, want := range map[string]string{
		"":                      "no key",
		"# nothing\n\n":         "no key",
		line(1) + short + "\n":  "line 2",
		"correct horse battery": "line 1",
	} {
		_, err := atrest.ParseKeys([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), short) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
