package validate_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/validate"
)

func TestMux_ChecksBodiesAgainstTheContract(t *testing.T) {
	mux := newMux(t, validate.Options{}, accept)
	for _, test := range []struct {
		name, body string
		fields     []string
	}{
		{"good", `{"protocol":"tcp","localPort":1}`, nil},
		{"good with all", `{"deviceId":"` + someID + `","protocol":"tcp+udp","localPort":65535,"localHost":"::1","port":1,"serverId":"` + someID + `","name":"","options":{"proxyProtocol":"v2","udpIdleSeconds":5}}`, nil},
		{"good with white space", " \n{\"protocol\":\"udp\",\"localPort\":1}\r\n", nil},
		{"empty", ``, []string{"body"}},
		{"not an object", `[]`, []string{"body"}},
		{"null", `null`, []string{"body"}},
		{"not JSON", `protocol=tcp`, []string{"body"}},
		{"cut short", `{"protocol":"tcp","localPort":`, []string{"localPort"}},
		{"cut short in an object", `{"protocol":"tcp","options":{"proxyProtocol":"v2"`, []string{"options"}},
		{"malformed in a field", `{"protocol":tcp,"localPort":1}`, []string{"protocol"}},
		{"comma missing", `{"protocol":"tcp" "localPort":1}`, []string{"body"}},
		{"comma too many", `{"protocol":"tcp","localPort":1,}`, []string{"body"}},
		{"trailing garbage", `{"protocol":"tcp","localPort":1}}`, []string{"body"}},
		{"a second value", `{"protocol":"tcp","localPort":1}{}`, []string{"body"}},
		{"missing", `{}`, []string{"localPort", "protocol"}},
		{"unknown", `{"protocol":"tcp","localPort":1,"colour":"red"}`, []string{"colour"}},
		{"unknown by case", `{"protocol":"tcp","localPort":1,"LocalHost":"::1"}`, []string{"LocalHost"}},
		{"unknown within", `{"protocol":"tcp","localPort":1,"options":{"colour":"red"}}`, []string{"options.colour"}},
		{"twice", `{"protocol":"tcp","localPort":1,"protocol":"udp"}`, []string{"protocol"}},
		{"twice within", `{"protocol":"tcp","localPort":1,"options":{"proxyProtocol":"v1","proxyProtocol":"v2"}}`, []string{"options.proxyProtocol"}},
		{"wrong type", `{"protocol":"tcp","localPort":"25565"}`, []string{"localPort"}},
		{"wrong type within", `{"protocol":"tcp","localPort":1,"options":{"proxyProtocol":1}}`, []string{"options.proxyProtocol"}},
		{"several wrong", `{"protocol":"sctp","localPort":0,"options":{"udpIdleSeconds":4.5}}`, []string{"localPort", "options.udpIdleSeconds", "protocol"}},
		{"not in the list", `{"protocol":"tcp","localPort":1,"options":{"proxyProtocol":"v3"}}`, []string{"options.proxyProtocol"}},
		{"null field", `{"protocol":"tcp","localPort":1,"port":null}`, []string{"port"}},
		{"out of range", `{"protocol":"tcp","localPort":65536}`, []string{"localPort"}},
		{"beyond the range of numbers", `{"protocol":"tcp","localPort":1e999}`, []string{"localPort"}},
		{"not a UUID", `{"deviceId":"abc","protocol":"tcp","localPort":1}`, []string{"deviceId"}},
		{"NUL", `{"protocol":"tcp","localPort":1,"name":"a\u0000b"}`, []string{"name"}},
		{"NUL in a name", `{"protocol":"tcp","localPort":1,"a\u0000b":1}`, []string{"body"}},
		{"raw NUL", "{\"protocol\":\"tcp\",\"localPort\":1,\"name\":\"a\x00b\"}", []string{"name"}},
		{"invalid UTF-8", "{\"protocol\":\"tcp\",\"localPort\":1,\"name\":\"a\xffb\"}", []string{"body"}},
		{"too long", `{"protocol":"tcp","localPort":1,"name":"` + strings.Repeat("ä", 101) + `"}`, []string{"name"}},
		{"too deep", `{"name":` + strings.Repeat("[", 30000), []string{"name" + strings.Repeat(".0", 31)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, failure := send(t, mux, "POST", "/api/tunnel/allocations", test.body, asUser, asJSON)
			if test.fields == nil {
				if w.Code != 204 {
					t.Errorf("answered %d %s", w.Code, w.Body)
				}
				return
			}
			if w.Code != 400 || failure.Error != types.CodeInvalidRequest || !slices.Equal(fields(failure), test.fields) {
				t.Errorf("answered %d %s, fields %q, want %q", w.Code, w.Body, fields(failure), test.fields)
			}
		})
	}
}

func TestMux_BoundsItsResponse(t *testing.T) {
	mux := newMux(t, validate.Options{}, accept)
	var body strings.Builder
	body.WriteString(`{"a":1`)
	for i := range 5000 {
		fmt.Fprintf(&body, `,"%d":1`, i)
	}
	body.WriteString(`}`)
	w, _ := send(t, mux, "POST", "/api/tunnel/allocations", body.String(), asUser, asJSON)
	if w.Code != 400 || w.Body.Len() > 4096 {
		t.Errorf("answered %d with %d bytes", w.Code, w.Body.Len())
	}
}

func TestMux_DoesNotEchoPasswords(t *testing.T) {
	mux := newMux(t, validate.Options{}, accept)
	for _, body := range []string{
		`{"email":"hunter2","password":"hunter2"}`,
		`{"email":"a@b.c","password":["hunter2"]}`,
		`{"email":"a@b.c","password":"hunter2`,
		`{"email":"Name <a@b.c>","password":"` + strings.Repeat("hunter2", 200) + `"}`,
	} {
		w, _ := send(t, mux, "POST", "/api/auth/login", body, asJSON)
		if w.Code != 400 || strings.Contains(w.Body.String(), "hunter2") {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
}

func TestMux_AcceptsOnlyJSON(t *testing.T) {
	mux := newMux(t, validate.Options{}, accept)
	const body = `{"name":"x"}`
	for header, status := range map[string]int{
		"Content-Type: application/json":                   204,
		"Content-Type: Application/JSON; charset=UTF-8":    204,
		"Content-Type: application/json; charset=utf8":     204,
		"Content-Type: application/json; charset=UTF8":     204,
		"Content-Type: application/json;charset=\"utf-8\"": 204,
		"Content-Type: application/json; charset='utf-8'":  204,
		"Content-Type: application/json; charset=":         204,
		"Content-Type: application/json;":                  204,
		"Content-Type: application/json; version=1":        204,
		"Content-Type:  application/json ; odata=verbose":  204,
		"Content-Type: application/json; charset=latin1":   415,
		"Content-Type: application/json; charset=utf-16":   415,
		"Content-Type: application/json, text/plain":       415,
		"Content-Type: text/plain":                         415,
		"Content-Type: application/x-www-form-urlencoded":  415,
		"Content-Type: application/problem+json":           415,
		"Content-Type: ;":                                  415,
		"X-Other: no content type":                         415,
	} {
		w, failure := send(t, mux, "POST", "/api/tunnel/device/start", body, header)
		if w.Code != status || (status == 415 && failure.Error != types.CodeUnsupportedMediaType) {
			t.Errorf("%s: %d %s, want %d", header, w.Code, failure.Error, status)
		}
	}
	if w, _ := send(t, mux, "POST", "/api/tunnel/device/start", body, asJSON, "Content-Encoding: gzip"); w.Code != 415 {
		t.Errorf("gzip: %d", w.Code)
	}
}

func TestMux_LimitsBodies(t *testing.T) {
	mux := newMux(t, validate.Options{}, accept)
	frame := len(`{"name":""}`)
	for _, chunked := range []bool{false, true} {
		for size, status := range map[int]int{validate.MaxBody: 400, validate.MaxBody + 1: 413} {
			body := `{"name":"` + strings.Repeat("a", size-frame) + `"}`
			r := httptest.NewRequest("POST", "/api/tunnel/device/start", bytes.NewReader([]byte(body)))
			r.Header.Set("Content-Type", "application/json")
			if chunked {
				r.ContentLength = -1
			}
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, r)
			if w.Code != status {
				t.Errorf("%d bytes, chunked %v: %d, want %d", size, chunked, w.Code, status)
			}
		}
	}
}

// FuzzMux_Body checks that the validator either accepts a body, which can then be
// decoded, or responds with a well-formed error, and never panics.
func FuzzMux_Body(f *testing.F) {
	for _, seed := range []string{
		`{"protocol":"tcp","localPort":1}`,
		`{"protocol":"tcp","localPort":1,"options":{"proxyProtocol":"v1","udpIdleSeconds":60}}`,
		`{"protocol":"tcp","protocol":"udp"}`,
		`{"name":"a\u0000b"}`, `{"port":1e999}`, `[[[[`, `{"a":{"b":`, `null`, ``, "\xff", `{"":""}`, `{"":"",""`, `{} {}`,
	} {
		f.Add([]byte(seed))
	}
	accepted := func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil || !json.Valid(text) {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		accept(w, r)
	}
	mux := newMux(f, validate.Options{}, accepted)
	f.Fuzz(func(t *testing.T, body []byte) {
		w, failure := send(t, mux, "POST", "/api/tunnel/allocations", string(body), asUser, asJSON)
		switch w.Code {
		case 204:
		case 400:
			if failure.Error != types.CodeInvalidRequest || failure.Details == nil {
				t.Errorf("malformed error %s", w.Body)
			}
			for _, detail := range *failure.Details {
				if detail.Field == "" || detail.Message == "" {
					t.Errorf("empty detail in %s", w.Body)
				}
			}
		case 413:
		default:
			t.Errorf("answered %d %s", w.Code, w.Body)
		}
	})
}

func TestMux_HostsAreHostsAlone(t *testing.T) {
	mux := newMux(t, validate.Options{}, accept)
	const device = "/api/tunnel/devices/" + someID
	for _, field := range []struct{ method, path, body, name, port string }{
		{"POST", "/api/tunnel/allocations", `{"protocol":"tcp","localPort":1,"localHost":%q}`, "localHost", "a port belongs in localPort"},
		{"PATCH", "/api/tunnel/allocations/7", `{"localHost":%q}`, "localHost", "a port belongs in localPort"},
		{"PATCH", device, `{"server":{"publicHost":%q}}`, "server.publicHost", "without a port"},
		{"POST", "/api/tunnel/device/start", `{"name":"x","kind":"server","server":{"publicHost":%q}}`, "server.publicHost", "without a port"},
	} {
		for host, message := range map[string]string{
			"play.example.com":        "",
			"2001:db8::7":             "",
			"127.0.0.1:25565":         field.port,
			"[::1]:25565":             field.port,
			"...":                     "must be a host name or an IP address",
			"http://play.test":        "not a URL",
			"[::1]":                   "without brackets",
			"127.0.0.300":             "must be an IPv4 address",
			strings.Repeat("a.", 140): "must be at most 253 characters",
		} {
			w, failure := send(t, mux, field.method, field.path, fmt.Sprintf(field.body, host), asUser, asJSON)
			if message == "" {
				if w.Code != 204 {
					t.Errorf("%s %s, %q: %d %s", field.method, field.path, host, w.Code, w.Body)
				}
				continue
			}
			if w.Code != 400 || !slices.Equal(fields(failure), []string{field.name}) || !strings.Contains(w.Body.String(), message) {
				t.Errorf("%s %s, %q: %d %s, want %s: %s", field.method, field.path, host, w.Code, w.Body, field.name, message)
			}
		}
	}
}

func TestMux_NamesAreOneLineOfText(t *testing.T) {
	mux := newMux(t, validate.Options{}, accept)
	for _, field := range []struct{ method, path, body, name string }{
		{"POST", "/api/tunnel/device/start", `{"name":%s}`, "name"},
		{"POST", "/api/tunnel/device/approve", `{"userCode":"CDFG-2345","name":%s}`, "name"},
		{"PATCH", "/api/tunnel/devices/" + someID, `{"name":%s}`, "name"},
		{"PATCH", "/api/tunnel/devices/" + someID, `{"server":{"region":%s}}`, "server.region"},
		{"POST", "/api/tunnel/allocations", `{"protocol":"tcp","localPort":1,"name":%s}`, "name"},
		{"PATCH", "/api/tunnel/allocations/7", `{"name":%s}`, "name"},
		{"POST", "/api/tunnel/device/start", `{"name":"home","platform":%s}`, "platform"},
		{"POST", "/api/tunnel/devices", `{"name":%s}`, "name"},
		{"POST", "/api/organisations", `{"name":%s}`, "name"},
		{"PATCH", "/api/organisations/7", `{"name":%s}`, "name"},
		{"POST", "/api/keys", `{"scopes":["read"],"name":%s}`, "name"},
		{"PATCH", "/api/keys/7", `{"name":%s}`, "name"},
	} {
		for name, accepted := range map[string]bool{
			"home-server": true,
			"Überlebende 生存 \U0001F9D1\u200D\U0001F680": true,
			"\u0645\u06cc\u200c\u062e":                  true,
			"a\nb":                                      false,
			"a\tb":                                      false,
			"\x1b[2Ja":                                  false,
			"\u009b2Ja":                                 false,
			"a\x7f":                                     false,
			"a\u202egpj.exe":                            false,
			"a\u2066b":                                  false,
			"a\u2028b":                                  false,
			"\ufeffa":                                   false,
		} {
			text, err := json.Marshal(name)
			if err != nil {
				t.Fatal(err)
			}
			w, failure := send(t, mux, field.method, field.path, fmt.Sprintf(field.body, text), asAdmin, asJSON)
			switch {
			case accepted && w.Code != 204:
				t.Errorf("%s %s, %q: %d %s", field.method, field.path, name, w.Code, w.Body)
			case !accepted && (w.Code != 400 || !slices.Equal(fields(failure), []string{field.name}) || !strings.Contains(w.Body.String(), "must not contain control characters")):
				t.Errorf("%s %s, %q: %d %s, want 400 for %s", field.method, field.path, name, w.Code, w.Body, field.name)
			}
		}
	}
}

func TestMux_EmailsHaveNoInvisibleCharacters(t *testing.T) {
	mux := newMux(t, validate.Options{}, accept)
	for _, field := range []struct{ method, path, body string }{
		{"POST", "/api/users", `{"email":%s}`},
		{"PATCH", "/api/users/7", `{"email":%s}`},
		{"PATCH", "/api/account", `{"currentPassword":"x","email":%s}`},
		{"POST", "/api/organisations/7/invitations", `{"role":"member","email":%s}`},
	} {
		for email, message := range map[string]string{
			"ada@example.com":             "",
			"zoë@bücher.example":          "",
			"ad\u200ba@example.com":       "invisible",
			"ada\u202emoc.elpmaxe@b":      "invisible",
			"\ufeffada@example.com":       "invisible",
			"ada@exam\u00adple.com":       "invisible",
			"ada\u00a0@example.com":       "invisible",
			"ada\x1b[2J@example.com":      "must be an email address",
			"ada@example.com\n":           "must be an email address",
			"Ada <ada@example.com>":       "must be an email address",
			"ada@example.com,b@c.example": "must be an email address",
		} {
			text, err := json.Marshal(email)
			if err != nil {
				t.Fatal(err)
			}
			w, failure := send(t, mux, field.method, field.path, fmt.Sprintf(field.body, text), asAdmin, asJSON)
			switch {
			case message == "" && w.Code != 204:
				t.Errorf("%s %s, %q: %d %s", field.method, field.path, email, w.Code, w.Body)
			case message != "" && (w.Code != 400 || !slices.Equal(fields(failure), []string{"email"}) || !strings.Contains(w.Body.String(), message)):
				t.Errorf("%s %s, %q: %d %s, want 400: %s", field.method, field.path, email, w.Code, w.Body, message)
			}
		}
	}
}

// What kin-openapi gives no reason for, and the contract no words, is the caller's fault all
// the same.
func TestMux_RefusesWithoutWordsOfTheContract(t *testing.T) {
	wordless := regexp.MustCompile(`,? *x-pattern-message: ('[^']*'|[^\n}]*)`).ReplaceAll(eclitunnel.OpenAPI, nil)
	if bytes.Equal(wordless, eclitunnel.OpenAPI) || bytes.Contains(wordless, []byte("x-pattern-message")) {
		t.Fatal("the contract's words were not removed")
	}
	mux, err := validate.New(validate.Options{Contract: wordless, Authenticator: tokens{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, operation := range mux.Unserved() {
		mux.HandleFunc(operation, accept)
	}
	for _, r := range []struct{ method, path, body, field string }{
		{"POST", "/api/keys", `{"scopes":["read"],"name":"a\u001bb"}`, "name"},
		{"PATCH", "/api/organisations/7", `{"name":"a\u202eb"}`, "name"},
		{"POST", "/api/tunnel/devices", `{"name":" "}`, "name"},
		{"GET", "/api/audit?after=!", "", "after"},
	} {
		w, failure := send(t, mux, r.method, r.path, r.body, asAdmin, asJSON)
		if w.Code != 400 || !slices.Equal(fields(failure), []string{r.field}) || (*failure.Details)[0].Message == "" {
			t.Errorf("%s %s with %s: %d %s", r.method, r.path, r.body, w.Code, w.Body)
		}
	}
}
