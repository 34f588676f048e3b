package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

// A proxied is one request through the validating proxy.
type proxied struct {
	as           string // Who sends it, by the name of a kept token; "" is nobody.
	method, path string
	body         string
	want         int
	keep         string // What to keep of the answer: name=field.field, separated by commas.
}

// unproxied are operations that cannot be sent through the proxy, and why.
var unproxied = map[string]string{
	"connectControlChannel": "becomes a WebSocket",
	"streamEvents":          "never ends, and the proxy answers at the end",
	"beginProviderLogin":    "there is no identity provider",
	"finishProviderLogin":   "there is no identity provider",
}

// proxiedRequests are the requests, in order. Words in braces stand for what was kept of an
// earlier answer.
var proxiedRequests = []proxied{
	{"", "GET", "/healthz", "", 200, ""},
	{"", "GET", "/readyz", "", 200, ""},
	{"", "GET", "/api/version", "", 200, ""},
	{"", "GET", "/openapi.json", "", 200, ""},
	{"", "GET", "/openapi.yaml", "", 200, ""},
	{"", "GET", "/.well-known/jwks.json", "", 200, ""},
	{"", "GET", "/api/auth/providers", "", 200, ""},
	{"", "GET", "/api/account", "", 401, ""},
	{"admin", "GET", "/api/auth/session", "", 200, ""},
	{"admin", "GET", "/api/account", "", 200, ""},
	{"admin", "GET", "/api/account/quota", "", 200, ""},
	{"admin", "GET", "/api/admin/settings", "", 200, ""},
	{"admin", "GET", "/api/admin/signing-keys", "", 200, ""},
	{"admin", "GET", "/api/admin/tunnel-servers/load", "", 200, ""},
	{"admin", "PATCH", "/api/admin/settings", `{"features":{"tunnels":true}}`, 200, ""},

	// A user, who is given a password and has an account of their own.
	{"admin", "POST", "/api/users", `{"email":"proxied@example.com"}`, 201, "user=id"},
	{"admin", "GET", "/api/users?limit=1", "", 200, ""},
	{"admin", "GET", "/api/users/{user}", "", 200, ""},
	{"admin", "PATCH", "/api/users/{user}", `{"suspended":false}`, 200, ""},
	{"admin", "GET", "/api/users/{user}/quota", "", 200, ""},
	{"admin", "PATCH", "/api/users/{user}/quota", `{"devices":3}`, 200, ""},
	{"admin", "POST", "/api/users/{user}/password-link", "", 200, "link=url"},
	{"", "POST", "/api/auth/set-password", `{"token":"{link}","password":"correct horse battery staple"}`, 204, ""},
	{"", "POST", "/api/auth/login", `{"email":"proxied@example.com","password":"wrong horse battery staple"}`, 401, ""},
	{"", "POST", "/api/auth/login", `{"email":"proxied@example.com","password":"correct horse battery staple"}`, 200, "person=token"},
	{"person", "POST", "/api/account/password", `{"currentPassword":"correct horse battery staple","newPassword":"incorrect donkey generator nail"}`, 204, ""},
	{"person", "PATCH", "/api/account", `{"currentPassword":"incorrect donkey generator nail","email":"proxy@example.com"}`, 200, ""},
	{"person", "GET", "/api/account/sessions?limit=1", "", 200, ""},
	{"person", "DELETE", "/api/account/sessions/3f0e2a6c-6f0b-4c0e-9f57-0d6f3c2f9a11", "", 404, ""},
	{"person", "DELETE", "/api/account/sessions", "", 200, ""},
	{"person", "GET", "/api/users", "", 403, ""},

	// An organisation, which that user joins and leaves.
	{"admin", "POST", "/api/organisations", `{"name":"proxied"}`, 201, "organisation=id"},
	{"admin", "GET", "/api/organisations", "", 200, ""},
	{"admin", "GET", "/api/organisations/{organisation}", "", 200, ""},
	{"admin", "PATCH", "/api/organisations/{organisation}", `{"name":"guild"}`, 200, ""},
	{"admin", "POST", "/api/organisations/{organisation}/invitations", `{"role":"admin"}`, 201, "invitation=id"},
	{"admin", "DELETE", "/api/organisations/{organisation}/invitations/{invitation}", "", 200, ""},
	{"admin", "POST", "/api/organisations/{organisation}/invitations", `{"role":"member"}`, 201, "invitationToken=url"},
	{"admin", "GET", "/api/organisations/{organisation}/invitations", "", 200, ""},
	{"person", "POST", "/api/invitations/look-up", `{"token":"{invitationToken}"}`, 200, ""},
	{"person", "POST", "/api/invitations/accept", `{"token":"{invitationToken}"}`, 200, ""},
	{"admin", "GET", "/api/organisations/{organisation}/members", "", 200, ""},
	{"admin", "GET", "/api/organisations/{organisation}/members/{user}", "", 200, ""},
	{"admin", "PATCH", "/api/organisations/{organisation}/members/{user}", `{"role":"admin"}`, 200, ""},
	{"admin", "DELETE", "/api/organisations/{organisation}/members/{user}", "", 200, ""},
	{"admin", "GET", "/api/organisations/{organisation}/rules", "", 200, ""},
	{"admin", "PATCH", "/api/organisations/{organisation}/rules", `{"maxPlayers":12}`, 200, ""},
	{"admin", "GET", "/api/organisations/{organisation}/quota", "", 200, ""},
	{"admin", "PATCH", "/api/organisations/{organisation}/quota", `{"devices":5}`, 200, ""},
	{"admin", "DELETE", "/api/organisations/{organisation}", "", 200, ""},

	{"person", "POST", "/api/keys", `{"name":"proxied","scopes":["read"]}`, 201, "key=id,keyText=key"},
	{"keyText", "GET", "/api/tunnel/devices", "", 200, ""},
	{"keyText", "POST", "/api/tunnel/devices", `{"name":"forbidden"}`, 403, ""},
	{"person", "GET", "/api/keys", "", 200, ""},
	{"person", "GET", "/api/keys/{key}", "", 200, ""},
	{"person", "PATCH", "/api/keys/{key}", `{"name":"renamed"}`, 200, ""},
	{"person", "DELETE", "/api/keys/{key}", "", 200, ""},

	// Terminals that act as that user.
	{"", "POST", "/api/auth/device", `{"client":"eclitunnel","host":"proxied","platform":"linux/amd64","scopes":["read"]}`, 200, "deniedLogin=userCode"},
	{"person", "POST", "/api/auth/device/deny", `{"userCode":"{deniedLogin}"}`, 200, ""},
	{"", "POST", "/api/auth/device", `{"client":"eclitunnel","host":"proxied","platform":"linux/amd64","scopes":["read"]}`, 200, "loginCode=userCode,loginDevice=deviceCode"},
	{"person", "GET", "/api/auth/device?userCode={loginCode}", "", 200, ""},
	{"person", "POST", "/api/auth/device/approve", `{"userCode":"{loginCode}"}`, 200, ""},
	{"", "POST", "/api/auth/device/token", `{"deviceCode":"{loginDevice}"}`, 200, "terminal=key.key"},
	{"terminal", "GET", "/api/tunnel/devices", "", 200, ""},
	{"", "POST", "/api/auth/device/revoke", `{"key":"{terminal}"}`, 200, ""},
	{"terminal", "GET", "/api/tunnel/devices", "", 401, ""},

	{"person", "POST", "/api/webhooks", `{"name":"proxied","url":"https://hooks.example.com/1","events":["device.offline"]}`, 201, "webhook=id"},
	{"person", "GET", "/api/webhooks", "", 200, ""},
	{"person", "GET", "/api/webhooks/{webhook}", "", 200, ""},
	{"person", "PATCH", "/api/webhooks/{webhook}", `{"offlineDelaySeconds":120}`, 200, ""},
	{"person", "POST", "/api/webhooks/{webhook}/rotate-secret", "", 200, ""},
	{"person", "POST", "/api/webhooks/{webhook}/test", "", 200, "delivery=id"},
	{"person", "GET", "/api/webhooks/{webhook}/deliveries", "", 200, ""},
	{"person", "POST", "/api/webhooks/{webhook}/deliveries/{delivery}/redeliver", "", 200, ""},
	{"person", "DELETE", "/api/webhooks/{webhook}", "", 200, ""},

	// Enrollments, and devices of them and without them.
	{"", "POST", "/api/tunnel/device/start", `{"name":"proxied"}`, 200, "denied=userCode"},
	{"admin", "GET", "/api/tunnel/device/pending?userCode={denied}", "", 200, ""},
	{"admin", "POST", "/api/tunnel/device/deny", `{"userCode":"{denied}"}`, 200, ""},
	{"", "POST", "/api/tunnel/device/start", `{"name":"proxied"}`, 200, "userCode=userCode,deviceCode=deviceCode"},
	{"", "GET", "/api/tunnel/device/poll?deviceCode={deviceCode}", "", 200, ""},
	{"admin", "POST", "/api/tunnel/device/approve", `{"userCode":"{userCode}"}`, 200, "enrolled=device.id"},
	{"admin", "PATCH", "/api/tunnel/devices/{enrolled}", `{"name":"renamed"}`, 200, ""},
	{"admin", "POST", "/api/tunnel/devices/{enrolled}/regenerate-token", "", 200, "device=token"},
	{"device", "GET", "/api/tunnel/devices/{enrolled}", "", 200, ""},
	{"admin", "POST", "/api/tunnel/devices", `{"name":"proxied","kind":"server","server":{"publicHost":"edge.example.com"}}`, 201, "server=device.id"},
	{"admin", "POST", "/api/tunnel/devices/{server}/drain", `{"timeoutSeconds":60}`, 200, ""},
	{"admin", "DELETE", "/api/tunnel/devices/{server}/delete", "", 200, ""},
	{"admin", "GET", "/api/tunnel/devices?limit=1", "", 200, ""},

	// Ports, used and closed.
	{"device", "POST", "/api/tunnel/allocations", `{"deviceId":"{enrolled}","protocol":"tcp","localPort":9,"options":{"proxyProtocol":"v2"}}`, 201, "allocation=id"},
	{"device", "GET", "/api/tunnel/allocations?limit=1", "", 200, ""},
	{"device", "GET", "/api/tunnel/allocations/{allocation}", "", 200, ""},
	{"admin", "PATCH", "/api/tunnel/allocations/{allocation}", `{"localPort":10}`, 200, ""},
	{"admin", "POST", "/api/tunnel/allocations/bulk", `{"action":"pause","ids":[{allocation}]}`, 200, ""},
	{"admin", "POST", "/api/tunnel/allocations/{allocation}/check", "", 200, ""},
	{"admin", "GET", "/api/tunnel/allocations/{allocation}/kept-out", "", 200, ""},
	{"admin", "DELETE", "/api/tunnel/allocations/{allocation}/kept-out?source=203.0.113.9", "", 404, ""},
	{"admin", "GET", "/api/tunnel/connections", "", 200, ""},
	{"admin", "GET", "/api/tunnel/connections/9b1d7c523a844f6e8d205c7e1a94b3f0-01f64c6f3c7f9f91", "", 404, ""},
	{"admin", "DELETE", "/api/tunnel/connections/9b1d7c523a844f6e8d205c7e1a94b3f0-01f64c6f3c7f9f91", "", 404, ""},
	{"admin", "GET", "/api/tunnel/usage?by=device", "", 200, ""},
	{"admin", "DELETE", "/api/tunnel/allocations/{allocation}", "", 200, ""},
	{"admin", "GET", "/api/tunnel/allocations/{allocation}", "", 404, ""},
	{"admin", "DELETE", "/api/tunnel/devices/{enrolled}/delete", "", 200, ""},

	{"person", "POST", "/api/auth/logout", "", 204, ""},
	{"admin", "DELETE", "/api/users/{user}", "", 200, ""},
	{"admin", "GET", "/api/audit?limit=50", "", 200, ""},
}

// TestContract_AValidatingProxyFindsNoViolation sends a request of every operation through
// Prism, which holds request and answer to the contract.
func TestContract_AValidatingProxyFindsNoViolation(t *testing.T) {
	w := sharedFor(t)
	ctx := within(t, 5*time.Minute)
	port, err := cluster.FreePorts(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	contract, err := filepath.Abs("../../openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, port, consumer(t, "prism"), "proxy", contract, w.panel.URL, "--errors", "-h", "127.0.0.1", "-p", strconv.Itoa(port))
	untried := operationsOf(t, w.panel.URL)
	kept := map[string]string{"admin": w.panel.Token}
	for _, request := range proxiedRequests {
		request.path, request.body = fill(request.path, kept), fill(request.body, kept)
		sendVia(t, "http://"+loopback(port), request, kept)
		path, _, _ := strings.Cut(request.path, "?")
		for id, pattern := range untried {
			if pattern.MatchString(request.method + " " + path) {
				delete(untried, id)
			}
		}
	}
	for id := range untried {
		if unproxied[id] == "" {
			t.Errorf("%s was not tried", id)
		}
	}
	for id := range unproxied {
		if untried[id] == nil {
			t.Errorf("%s was tried, or the contract does not have it", id)
		}
	}
}

// operationsOf returns, for each operation of the contract, what its requests are like.
func operationsOf(t *testing.T, url string) map[string]*regexp.Regexp {
	t.Helper()
	var document struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(pageOf(t, url+"/openapi.json")), &document); err != nil {
		t.Fatal(err)
	}
	parameter := regexp.MustCompile(`\\{\w+\\}`)
	operations := map[string]*regexp.Regexp{}
	for path, item := range document.Paths {
		for method, text := range item {
			var operation struct{ OperationID string }
			if json.Unmarshal(text, &operation) == nil && operation.OperationID != "" {
				operations[operation.OperationID] = regexp.MustCompile("^" + strings.ToUpper(method) + " " +
					parameter.ReplaceAllString(regexp.QuoteMeta(path), "[^/]+") + "$")
			}
		}
	}
	return operations
}

func fill(text string, kept map[string]string) string {
	for name, value := range kept {
		text = strings.ReplaceAll(text, "{"+name+"}", value)
	}
	return text
}

// sendVia sends a request through the proxy. The proxy answers 500 where request or answer
// break the contract.
func sendVia(t *testing.T, proxy string, request proxied, kept map[string]string) {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t, patience), request.method, proxy+request.path, strings.NewReader(request.body))
	if err != nil {
		t.Fatal(err)
	}
	if request.as != "" {
		req.Header.Set("Authorization", "Bearer "+kept[request.as])
	}
	if request.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	violations := resp.Header.Get("sl-violations")
	if violations != "" || resp.StatusCode != request.want {
		t.Fatalf("%s %s: %s, want %d: %s%.300s", request.method, request.path, resp.Status, request.want, violations, text)
	}
	for entry := range strings.SplitSeq(request.keep, ",") {
		if name, field, found := strings.Cut(entry, "="); found {
			kept[name] = fieldOf(t, text, field)
		}
	}
}

// fieldOf returns a field of a JSON object as text; of a link, the secret after the #.
func fieldOf(t *testing.T, text []byte, field string) string {
	t.Helper()
	for name := range strings.SplitSeq(field, ".") {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(text, &object); err != nil || object[name] == nil {
			t.Fatalf("there is no %s in %s", field, text)
		}
		text = object[name]
	}
	value := strings.Trim(string(text), `"`)
	if _, secret, found := strings.Cut(value, "#"); found {
		return secret
	}
	return value
}
