package server_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// curl makes a request as the published page's examples do: with the session as a
// cookie and nothing else that a browser would send.
func curl(t *testing.T, p *servertest.Panel, method, path, session, body string) (int, map[string]any) {
	t.Helper()
	text, status := curlText(t, p, method, path, session, body)
	var answer map[string]any
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, text)
	}
	return status, answer
}

func curlText(t *testing.T, p *servertest.Panel, method, path, session, body string) ([]byte, int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", "session="+session)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := p.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return text, resp.StatusCode
}

func TestPanel_ServesThePublishedExamples(t *testing.T) {
	p := servertest.Start(t)
	session := p.Login()

	status, started := curl(t, p, http.MethodPost, "/api/tunnel/device/start", session, `{"name":"gaming-rig","kind":"client"}`)
	if status != http.StatusOK || started["deviceCode"] == "" || started["userCode"] == "" || started["expiresAt"] == "" {
		t.Fatalf("start: %d %v", status, started)
	}
	poll := "/api/tunnel/device/poll?deviceCode=" + started["deviceCode"].(string)
	if status, answer := curl(t, p, http.MethodGet, poll, session, ""); status != http.StatusOK || answer["approved"] != false || answer["token"] != nil {
		t.Errorf("poll: %d %v", status, answer)
	}
	status, approved := curl(t, p, http.MethodPost, "/api/tunnel/device/approve", session, `{"userCode":"`+started["userCode"].(string)+`"}`)
	if status != http.StatusOK || approved["success"] != true {
		t.Fatalf("approve: %d %v", status, approved)
	}
	id := approved["device"].(map[string]any)["id"].(string)

	var devices []types.Device
	text, status := curlText(t, p, http.MethodGet, "/api/tunnel/devices", session, "")
	if err := json.Unmarshal(text, &devices); err != nil || status != http.StatusOK {
		t.Fatalf("devices: %d %v %s", status, err, text)
	}
	if len(devices) != 2 || devices[0].Name != "gaming-rig" || !devices[0].Approved || devices[1].Kind != types.DeviceKindServer {
		t.Errorf("devices %+v", devices)
	}
	if text, status := curlText(t, p, http.MethodGet, "/api/tunnel/allocations", session, ""); status != http.StatusOK || string(text) != "[]\n" {
		t.Errorf("allocations: %d %s", status, text)
	}
	if status, answer := curl(t, p, http.MethodPost, "/api/tunnel/devices/"+id+"/regenerate-token", session, ""); status != http.StatusOK || answer["success"] != true || answer["token"] == "" {
		t.Errorf("regenerate: %d %v", status, answer)
	}
	if status, answer := curl(t, p, http.MethodDelete, "/api/tunnel/devices/"+id+"/delete", session, ""); status != http.StatusOK || answer["success"] != true {
		t.Errorf("delete: %d %v", status, answer)
	}
}

func TestPanel_ServesPagesBesideTheAPI(t *testing.T) {
	p := servertest.Start(t)
	for path, want := range map[string]struct {
		status      int
		contentType string
	}{
		"/":             {http.StatusOK, "text/html"},
		"/device?code=": {http.StatusOK, "text/html"},
		"/openapi.json": {http.StatusOK, "application/json"},
		"/api/nothing":  {http.StatusNotFound, "application/json"},
	} {
		resp, err := p.HTTP.Get(p.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want.status || !strings.HasPrefix(resp.Header.Get("Content-Type"), want.contentType) {
			t.Errorf("%s: %s, %s", path, resp.Status, resp.Header.Get("Content-Type"))
		}
	}
}
