package validate_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
	"github.com/eclitunnel/eclitunnel/server/internal/validate"
)

// tokens is an Authenticator that accepts the credentials "user", "admin" and "device".
type tokens struct{}

func (tokens) Authenticate(r *http.Request) (auth.Principal, error) {
	switch r.Header.Get("Authorization") {
	case "":
		return auth.Principal{}, nil
	case "user":
		return auth.Principal{User: &db.User{ID: 7}, Session: &db.Session{}}, nil
	case "admin":
		return auth.Principal{User: &db.User{ID: 8, Role: "admin"}, Session: &db.Session{}}, nil
	case "device":
		return auth.Principal{Device: &db.Device{}}, nil
	default:
		return auth.Principal{}, problem.Unauthorized("This token is not valid.")
	}
}

// newMux serves every operation of the contract with handler.
func newMux(t testing.TB, options validate.Options, handler http.HandlerFunc) *validate.Mux {
	t.Helper()
	options.Contract = eclitunnel.OpenAPI
	options.Authenticator = tokens{}
	mux, err := validate.New(options)
	if err != nil {
		t.Fatal(err)
	}
	for _, operation := range mux.Unserved() {
		mux.HandleFunc(operation, handler)
	}
	if missing := mux.Unserved(); len(missing) > 0 {
		t.Fatalf("still unserved: %v", missing)
	}
	return mux
}

func accept(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

// send makes a request with headers given as "Name: value".
func send(t testing.TB, handler http.Handler, method, target, body string, headers ...string) (*httptest.ResponseRecorder, types.Problem) {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	var failure types.Problem
	if w.Code >= 400 {
		if err := json.Unmarshal(w.Body.Bytes(), &failure); err != nil {
			t.Fatalf("%s %s answered %d with %q, which is not an error", method, target, w.Code, w.Body)
		}
	}
	return w, failure
}

const (
	asUser   = "Authorization: user"
	asAdmin  = "Authorization: admin"
	asDevice = "Authorization: device"
	asForged = "Authorization: forged"
	asJSON   = "Content-Type: application/json"
	someID   = "3f0e2a6c-6f0b-4c0e-9f57-0d6f3c2f9a11"
)

func TestMux_RoutesByTheContract(t *testing.T) {
	mux := newMux(t, validate.Options{}, accept)
	for _, test := range []struct {
		method, target string
		status         int
		allow          string
	}{
		{"GET", "/healthz", 204, ""},
		{"HEAD", "/healthz", 204, ""},
		{"GET", "/api/tunnel/devices", 204, ""},
		{"GET", "/", 404, ""},
		{"GET", "/api/tunnel", 404, ""},
		{"GET", "/api/tunnel/devices/", 404, ""},
		{"GET", "/api//tunnel/devices", 404, ""},
		{"GET", "/api/../api/tunnel/devices", 404, ""},
		{"POST", "/api/audit", 405, "GET, HEAD"},
		{"OPTIONS", "/api/tunnel/devices", 405, "GET, HEAD, POST"},
		{"BREW", "/api/tunnel/allocations/1", 405, "DELETE, GET, HEAD, PATCH"},
		{"GET", "/api/auth/login", 405, "POST"},
	} {
		w, failure := send(t, mux, test.method, test.target, "", asUser)
		if w.Code != test.status || w.Header().Get("Allow") != test.allow {
			t.Errorf("%s %s: %d, Allow %q; want %d, %q", test.method, test.target, w.Code, w.Header().Get("Allow"), test.status, test.allow)
		}
		want := map[int]types.ErrorCode{404: types.CodeNotFound, 405: types.CodeMethodNotAllowed}[test.status]
		if failure.Error != want {
			t.Errorf("%s %s: error %q, want %q", test.method, test.target, failure.Error, want)
		}
	}
}

func TestMux_AuthorisesCallersByOperation(t *testing.T) {
	const start, startBody = "/api/tunnel/device/start", `{"name":"x"}`
	mux := newMux(t, validate.Options{}, accept)
	for _, test := range []struct {
		method, target, body, as string
		status                   int
	}{
		{"GET", "/api/tunnel/devices", "", asUser, 204},
		{"GET", "/api/tunnel/devices", "", "", 401},
		{"GET", "/api/tunnel/devices", "", asForged, 401},
		{"GET", "/api/tunnel/devices", "", asDevice, 403},
		{"GET", "/api/admin/settings", "", asAdmin, 204},
		{"GET", "/api/admin/settings", "", asUser, 403},
		{"PATCH", "/api/admin/settings", "not read", asUser, 403},
		{"GET", "/api/tunnel/allocations", "", asUser, 204},
		{"GET", "/api/tunnel/allocations", "", asDevice, 204},
		{"GET", "/api/tunnel/allocations", "", "", 401},
		{"GET", "/api/tunnel/ws", "", asDevice, 204},
		{"GET", "/api/tunnel/ws", "", asUser, 403},
		{"GET", "/api/tunnel/ws", "", "", 401},
		{"POST", start, startBody, "", 204},
		{"POST", start, startBody, asUser, 204},
		{"POST", start, startBody, asDevice, 403},
		{"POST", start, startBody, asForged, 401},
		{"GET", "/api/tunnel/device/poll?deviceCode=x", "", "", 204},
		{"GET", "/api/tunnel/device/poll?deviceCode=x", "", asForged, 204},
		{"GET", "/api/tunnel/device/poll?deviceCode=x", "", asDevice, 204},
	} {
		w, failure := send(t, mux, test.method, test.target, test.body, test.as, asJSON)
		if w.Code != test.status {
			t.Errorf("%s %s as %q: %d, want %d", test.method, test.target, test.as, w.Code, test.status)
		}
		if w.Code == 401 && (failure.Error != types.CodeUnauthorized || w.Header().Get("WWW-Authenticate") != "Bearer") {
			t.Errorf("%s %s as %q: %q, WWW-Authenticate %q", test.method, test.target, test.as, failure.Error, w.Header().Get("WWW-Authenticate"))
		}
	}
}

func TestMux_PassesOnThePrincipalAndTheBody(t *testing.T) {
	const body = `{"deviceId":"` + someID + `","protocol":"tcp","localPort":25565}`
	mux := newMux(t, validate.Options{}, func(w http.ResponseWriter, r *http.Request) {
		read, err := io.ReadAll(r.Body)
		if err != nil || string(read) != body {
			t.Errorf("body is %q, %v", read, err)
		}
		if user := auth.FromContext(r.Context()).User; user == nil || user.ID != 7 {
			t.Errorf("user is %v", user)
		}
		accept(w, r)
	})
	if w, failure := send(t, mux, "POST", "/api/tunnel/allocations", body, asUser, asJSON); w.Code != 204 {
		t.Errorf("answered %d %+v", w.Code, failure)
	}
}

// unread is a body that fails the test when it is read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func TestMux_DoesNotReadTheBodyOfAnUnauthenticatedCaller(t *testing.T) {
	mux := newMux(t, validate.Options{}, accept)
	r := httptest.NewRequest("POST", "/api/tunnel/allocations", unread{t})
	r.Header.Set("Content-Type", "text/plain")
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	if w.Code != http.StatusUnauthorized {
		t.Errorf("answered %d", w.Code)
	}
}

func TestMux_CallsAdmitBeforeAuthentication(t *testing.T) {
	mux := newMux(t, validate.Options{Admit: func(_ *http.Request, path string) error {
		if path == "/api/tunnel/devices/{id}" {
			return problem.FeatureDisabled()
		}
		return nil
	}}, accept)
	if w, failure := send(t, mux, "GET", "/api/tunnel/devices/x", ""); w.Code != 503 || failure.Error != types.CodeFeatureDisabled {
		t.Errorf("answered %d %s", w.Code, failure.Error)
	}
	if w, _ := send(t, mux, "GET", "/api/tunnel/devices", ""); w.Code != 401 {
		t.Errorf("answered %d", w.Code)
	}
}

func TestMux_ChecksParametersAgainstTheContract(t *testing.T) {
	mux := newMux(t, validate.Options{}, accept)
	for target, field := range map[string]string{
		"/api/tunnel/devices?limit=5&after=" + someID:     "",
		"/api/tunnel/devices?limit=0":                     "limit",
		"/api/tunnel/devices?limit=1001":                  "limit",
		"/api/tunnel/devices?limit=ten":                   "limit",
		"/api/tunnel/devices?limit=":                      "limit",
		"/api/tunnel/devices?limit=1&limit=2":             "limit",
		"/api/tunnel/devices?after=x%20y":                 "after",
		"/api/tunnel/devices?after=":                      "after",
		"/api/tunnel/devices?colour=red":                  "colour",
		"/api/tunnel/devices?li%00mit=5":                  "query",
		"/api/tunnel/devices?limit=%zz":                   "query",
		"/healthz?x=1":                                    "x",
		"/api/tunnel/device/poll":                         "deviceCode",
		"/api/tunnel/device/poll?deviceCode=":             "deviceCode",
		"/api/tunnel/device/poll?deviceCode=a%00b":        "deviceCode",
		"/api/tunnel/device/poll?deviceCode=%ff":          "deviceCode",
		"/api/tunnel/device/poll?deviceCode=ok":           "",
		"/api/tunnel/devices/" + someID:                   "",
		"/api/tunnel/devices/" + strings.ToUpper(someID):  "",
		"/api/tunnel/devices/abc-uuid":                    "id",
		"/api/tunnel/devices/{" + someID + "}":            "id",
		"/api/tunnel/devices/urn:uuid:" + someID:          "id",
		"/api/tunnel/devices/" + someID[:35] + "%00":      "id",
		"/api/tunnel/devices/%2e%2e":                      "id",
		"/api/tunnel/allocations/7":                       "",
		"/api/tunnel/allocations/0":                       "id",
		"/api/tunnel/allocations/seven":                   "id",
		"/api/tunnel/allocations/99999999999999999999999": "id",
	} {
		w, failure := send(t, mux, "GET", target, "", asUser)
		if field == "" {
			if w.Code != 204 {
				t.Errorf("%s: %d %s", target, w.Code, w.Body)
			}
			continue
		}
		if w.Code != 400 || failure.Error != types.CodeInvalidRequest || !slices.Equal(fields(failure), []string{field}) {
			t.Errorf("%s: %d %s, fields %v; want %s", target, w.Code, failure.Error, fields(failure), field)
		}
	}
}

// fields lists the fields that an error names, each once.
func fields(failure types.Problem) []string {
	var names []string
	if failure.Details != nil {
		for _, detail := range *failure.Details {
			names = append(names, detail.Field)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func TestMux_HandlerMayHijack(t *testing.T) {
	mux := newMux(t, validate.Options{}, func(w http.ResponseWriter, _ *http.Request) {
		if _, ok := w.(http.Hijacker); !ok {
			t.Error("the connection cannot be hijacked")
		}
		accept(w, nil)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	request, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/api/tunnel/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "device")
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != 204 {
		t.Errorf("answered %d", response.StatusCode)
	}
}

func TestMux_RejectsAHandlerOutsideTheContract(t *testing.T) {
	mux := newMux(t, validate.Options{}, accept)
	defer func() {
		if recover() == nil {
			t.Error("the handler was accepted")
		}
	}()
	mux.HandleFunc("GET /api/secret", accept)
}

func TestMux_JSONIsTheContract(t *testing.T) {
	text, err := newMux(t, validate.Options{}, accept).JSON()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := validate.Load(text)
	if err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.0.3" || doc.Paths.Value("/api/tunnel/device/start") == nil {
		t.Errorf("it is OpenAPI %s without the paths", doc.OpenAPI)
	}
}
