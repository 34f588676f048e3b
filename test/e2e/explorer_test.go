package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
)

// explorerPatience bounds what the browser does, which on a machine of its own takes
// under a minute.
const explorerPatience = 8 * time.Minute

// TestExplorer_IsUsableInABrowser opens the API explorer in Chromium, as browser/explorer.mjs
// says: every operation, guide and message appears, every GET can be tried with a session
// and with a key, nothing else is sent without a switch, and nothing of another origin is
// asked for. ECLITUNNEL_SCREENSHOTS names a directory for pictures of it.
func TestExplorer_IsUsableInABrowser(t *testing.T) {
	node, chromium := find(t, "node"), find(t, "chromium")
	if _, err := os.Stat(filepath.Join("..", "..", "node_modules", "playwright-core")); err != nil {
		skipOrFail(t, "node_modules has no playwright-core: npm ci installs it")
	}
	w := sharedFor(t)
	if page := pageOf(t, w.panel.URL+"/openapi"); !strings.Contains(page, "explorer.js") {
		skipOrFail(t, "the panel was built without the API explorer: make build builds it in")
	}
	settings := filepath.Join(clustertest.Dir(t), "explorer.json")
	writeFile(t, settings, explorerSettings(t, w, chromium), 0o600)
	ctx := within(t, explorerPatience)
	output, err := exec.CommandContext(ctx, node, filepath.Join("browser", "explorer.mjs"), settings).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

// explorerSettings returns what explorer.mjs needs: credentials, and ids that exist.
func explorerSettings(t *testing.T, w *world, chromium string) []byte {
	t.Helper()
	ctx, api := within(t, patience), w.panel.API
	key, err := api.CreateAPIKeyWithResponse(ctx, types.APIKeyCreate{
		Name: "explorer", Scopes: []types.APIKeyScope{types.ScopeRead, types.ScopeEnrollment, types.ScopeAdmin},
	})
	if err != nil || key.JSON201 == nil {
		t.Fatal(err, key)
	}
	organisation, err := api.CreateOrganisationWithResponse(ctx, types.OrganisationCreate{Name: "explorers"})
	if err != nil || organisation.JSON201 == nil {
		t.Fatal(err, organisation)
	}
	enrollment, err := api.StartEnrollmentWithResponse(ctx, types.EnrollmentStart{Name: "explored"})
	if err != nil || enrollment.JSON200 == nil {
		t.Fatal(err, enrollment)
	}
	login, err := api.StartDeviceLoginWithResponse(ctx, types.DeviceLoginStart{Client: "explorer", Scopes: types.APIKeyScopes{types.ScopeRead}})
	if err != nil || login.JSON200 == nil {
		t.Fatal(err, login)
	}
	session, err := api.GetSessionWithResponse(ctx)
	if err != nil || session.JSON200 == nil {
		t.Fatal(err, session)
	}
	allocation, err := api.CreateAllocationWithResponse(ctx, types.AllocationCreate{
		DeviceID: &w.agent.Device.ID, Protocol: types.CreateTCP, LocalPort: 9,
	})
	if err != nil || allocation.JSON201 == nil {
		t.Fatal(err, allocation)
	}
	t.Cleanup(func() { w.withdraw(t, allocation.JSON201.Allocations) })
	settings, err := json.Marshal(map[string]any{
		"browser": chromium, "url": w.panel.URL, "email": cluster.AdminEmail, "password": w.panel.Password, "key": key.JSON201.Key,
		"screenshots": os.Getenv("ECLITUNNEL_SCREENSHOTS"),
		"parameters": map[string]any{
			"deviceCode": enrollment.JSON200.DeviceCode,
			"userCode": map[string]any{
				"/api/tunnel/device/": enrollment.JSON200.UserCode,
				"/api/auth/device":    login.JSON200.UserCode,
			},
			"id": map[string]any{
				"/api/tunnel/allocations/": allocation.JSON201.ID,
				"/api/tunnel/devices/":     w.agent.Device.ID,
				"/api/organisations/":      organisation.JSON201.ID,
				"/api/users/":              session.JSON200.User.ID,
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return settings
}

// skipOrFail skips a test that cannot run here, and fails it where CI is set.
func skipOrFail(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// pageOf returns a page of the panel.
func pageOf(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t, patience), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(fmt.Errorf("%s: %s: %w", url, resp.Status, err))
	}
	return string(page)
}
