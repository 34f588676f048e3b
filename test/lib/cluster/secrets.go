package cluster

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// minSecret is the length in bytes below which a value is no secret: it could stand in a log for
// another reason.
const minSecret = 8

// shapes are secrets that are known by their form, so that those that nobody has noted are found too.
// The last group of a form is the secret.
var shapes = []struct {
	kind string
	form *regexp.Regexp
}{
	{"signed token", regexp.MustCompile(`\b(eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{16,})`)},
	{"API key", regexp.MustCompile(`\b(etk_\w{20,})`)},
	{"one-time link", regexp.MustCompile(`/(?:password|invitation)#([\w-]{20,})`)},
	{"private key", regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----\s+([\w+/=\s]+)`)},
}

// received are secrets in what a program answers, beside the shapes: fields of JSON, and cookies. The first
// group is the kind.
var received = []*regexp.Regexp{
	regexp.MustCompile(`"(token|deviceCode|ticket|secret|password)"\s*:\s*"([^"\s]+)"`),
	regexp.MustCompile(`(?im)^set-cookie: *((?:__Host-)?[\w-]+)=([^;\s]+)`),
}

// secretVariable matches the settings that are secrets, or name a file with one.
var secretVariable = regexp.MustCompile(`^ECLITUNNEL_\w*(?:PASSWORD|TOKEN|SECRET|KEY)(_FILE)?$`)

// Secret notes a value of this kind that no log may show. Short values are ignored.
func (l *Logs) Secret(kind, value string) {
	if l == nil || len(value) < minSecret {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.secrets[value]; !ok {
		l.secrets[value] = kind
	}
}

// Received notes the secrets in what a program has answered or stored: the head or body of a response, or
// a file.
func (l *Logs) Received(text []byte) {
	if l == nil {
		return
	}
	for _, form := range received {
		for _, found := range form.FindAllSubmatch(text, -1) {
			l.Secret(string(found[1]), string(found[2]))
		}
	}
	for _, shape := range shapes {
		for _, found := range shape.form.FindAllSubmatch(text, -1) {
			for line := range strings.Lines(string(found[1])) {
				l.Secret(shape.kind, strings.TrimSpace(line))
			}
		}
	}
}

// noteSettings notes the secrets in a program's settings. A file that is missing is for the program to complain about.
func (l *Logs) noteSettings(env []string) {
	if l == nil {
		return
	}
	for _, setting := range env {
		name, value, _ := strings.Cut(setting, "=")
		if strings.HasSuffix(name, "_DATABASE_URL") {
			l.password(name, value)
			continue
		}
		if strings.HasSuffix(name, "_DATABASE_URL_FILE") {
			content, _ := os.ReadFile(value)
			l.password(name, strings.TrimSpace(string(content)))
			continue
		}
		found := secretVariable.FindStringSubmatch(name)
		if found == nil {
			continue
		}
		if found[1] == "" {
			l.Secret(name, value)
			continue
		}
		content, _ := os.ReadFile(value)
		for line := range bytes.Lines(content) {
			if line := strings.TrimSpace(string(line)); !strings.HasPrefix(line, "-----") {
				l.Secret(name, line)
			}
		}
	}
}

// password notes that of a URL.
func (l *Logs) password(kind, text string) {
	if u, err := url.Parse(text); err == nil {
		password, _ := u.User.Password()
		l.Secret(kind, password)
	}
}

// Kinds returns how many secrets of each kind were noted.
func (l *Logs) Kinds() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	kinds := map[string]int{}
	for kind := range maps.Values(l.secrets) {
		kinds[kind]++
	}
	return kinds
}

// forms are the ways in which a log may show a value.
func forms(value string) map[string]bool {
	all := map[string]bool{value: true, url.QueryEscape(value): true, url.PathEscape(value): true}
	quoted := strconv.Quote(value)
	all[quoted[1:len(quoted)-1]] = true
	// A string has a form in JSON.
	inJSON, _ := json.Marshal(value)
	all[string(inJSON[1:len(inJSON)-1])] = true
	all[hex.EncodeToString([]byte(value))] = true
	all[fmt.Sprintf("%X", value)] = true
	decimal := fmt.Sprintf("%d", []byte(value))
	all[decimal[1:len(decimal)-1]] = true
	// Within a longer text, base64 depends on what is before: bits of neighbours are left out.
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			text := encoding.EncodeToString(append(make([]byte, before), value...))
			first, last := []int{0, 2, 3}[before], len(text)
			if (before+len(value))%3 != 0 {
				last--
			}
			all[text[first:last]] = true
		}
	}
	return all
}

// finder finds secrets in lines, however many there are: it looks up each piece of minSecret bytes of a
// line among the beginnings of all forms.
type finder map[string][]form

type form struct{ text, kind string }

func (l *Logs) finder() finder {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := finder{}
	for value, kind := range l.secrets {
		for text := range forms(value) {
			f[text[:minSecret]] = append(f[text[:minSecret]], form{text, kind})
		}
	}
	return f
}

// find returns the kinds of the secrets in a line, and the line without them.
func (f finder) find(line string) (kinds []string, rest string) {
	rest = line
	hide := func(secret, kind string) {
		kinds = append(kinds, kind)
		rest = strings.ReplaceAll(rest, secret, "["+kind+"]")
	}
	for i := 0; i+minSecret <= len(line); i++ {
		for _, form := range f[line[i:i+minSecret]] {
			if strings.HasPrefix(line[i:], form.text) {
				hide(form.text, form.kind)
			}
		}
	}
	for _, shape := range shapes {
		for _, found := range shape.form.FindAllStringSubmatch(rest, -1) {
			hide(found[1], shape.kind)
		}
	}
	return kinds, rest
}
