package handler_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// policyRequest makes the request of a row about a target, and returns the answer.
type policyRequest func(w *world, t *testing.T, c caller, to *target) auth.Answer

var placeholders = regexp.MustCompile(`\{[a-zA-Z]+\}`)

// answered makes a request, whose path and body may have placeholders.
func answered(method, path, body string) policyRequest {
	return func(w *world, t *testing.T, c caller, to *target) auth.Answer {
		t.Helper()
		fill := func(text string) string {
			return placeholders.ReplaceAllStringFunc(text, func(name string) string { return to.placeholder(t, w, name) })
		}
		var content any
		if body != "" {
			content = fill(body)
		}
		a := c.send(t, method, fill(path), content)
		if a.status < http.StatusBadRequest { // A redirect is an answer, too.
			return auth.Allowed
		}
		return auth.Answer(a.status)
	}
}

// listed requests a list and looks for what the request is about.
func listed(path, wanted string) policyRequest {
	return func(w *world, t *testing.T, c caller, to *target) auth.Answer {
		t.Helper()
		id := to.placeholder(t, w, wanted)
		a := c.send(t, "GET", path, nil)
		if a.status != http.StatusOK {
			return auth.Answer(a.status)
		}
		for _, item := range decode[[]map[string]json.RawMessage](t, a, http.StatusOK) {
			if strings.Trim(string(item["id"]), `"`) == id {
				return auth.Allowed
			}
		}
		return auth.Unlisted
	}
}

// inBulk deletes the allocation in bulk, and looks for its result.
func inBulk(w *world, t *testing.T, c caller, to *target) auth.Answer {
	t.Helper()
	a := c.send(t, "POST", "/api/tunnel/allocations/bulk", `{"action":"delete","ids":[`+to.placeholder(t, w, "{allocation}")+`]}`)
	if a.status != http.StatusOK {
		return auth.Answer(a.status)
	}
	if decode[types.BulkResults](t, a, http.StatusOK).Results[0].Ok {
		return auth.Allowed
	}
	return auth.Unlisted
}

// checksPasswords are the operations that check or hash a password, which is slow on purpose:
// one caller of each column sends them.
var checksPasswords = map[string]bool{"login": true, "setPassword": true, "updateAccount": true, "changePassword": true}

// policyRequests are the requests of the rows.
var policyRequests = map[string]policyRequest{
	"listAllocations":                   listed("/api/tunnel/allocations", "{allocation}"),
	"getUsage":                          answered("GET", "/api/tunnel/usage", ""),
	"createAllocation":                  answered("POST", "/api/tunnel/allocations", `{"deviceId":"{client}","protocol":"tcp","localPort":25565,"serverId":"{server}"}`),
	"createAllocation, port below 1024": answered("POST", "/api/tunnel/allocations", `{"deviceId":"{client}","protocol":"tcp","localPort":25565,"serverId":"{server}","port":80}`),
	"createAllocation, outside range":   answered("POST", "/api/tunnel/allocations", `{"deviceId":"{client}","protocol":"tcp","localPort":25565,"serverId":"{server}","port":25565}`),
	"createAllocation, cordoned server": answered("POST", "/api/tunnel/allocations", `{"deviceId":"{client}","protocol":"tcp","localPort":25565,"serverId":"{cordoned}"}`),
	"getAllocation":                     answered("GET", "/api/tunnel/allocations/{allocation}", ""),
	"updateAllocation":                  answered("PATCH", "/api/tunnel/allocations/{allocation}", `{"name":"arena"}`),
	"updateAllocation, port below 1024": answered("PATCH", "/api/tunnel/allocations/{allocation}", `{"port":80}`),
	"updateAllocation, outside range":   answered("PATCH", "/api/tunnel/allocations/{allocation}", `{"port":25565}`),
	"updateAllocation, cordoned server": answered("PATCH", "/api/tunnel/allocations/{allocation}", `{"serverId":"{cordoned}"}`),
	"bulkAllocations":                   inBulk,
	"deleteAllocation":                  answered("DELETE", "/api/tunnel/allocations/{allocation}", ""),
	"checkAllocation":                   answered("POST", "/api/tunnel/allocations/{allocation}/check", ""),
	"listKeptOut":                       answered("GET", "/api/tunnel/allocations/{allocation}/kept-out", ""),
	"readmitSource":                     answered("DELETE", "/api/tunnel/allocations/{allocation}/kept-out?source={keptOut}", ""),
	"listConnections":                   listed("/api/tunnel/connections", "{connection}"),
	"getConnection":                     answered("GET", "/api/tunnel/connections/{connection}", ""),
	"closeConnection":                   answered("DELETE", "/api/tunnel/connections/{connection}?keepOutSeconds=60", ""),
	"listDevices":                       listed("/api/tunnel/devices", "{client}"),
	"getDevice":                         answered("GET", "/api/tunnel/devices/{device}", ""),
	"updateDevice":                      answered("PATCH", "/api/tunnel/devices/{device}", `{"name":"gaming-rig"}`),
	"updateDevice, server settings":     answered("PATCH", "/api/tunnel/devices/{server}", `{"server":{"region":"eu"}}`),
	"updateDevice, oneself":             toOneself,
	"updateDevice, another owner":       answered("PATCH", "/api/tunnel/devices/{client}", `{"ownerId":{user}}`),
	"updateDevice, organisation":        answered("PATCH", "/api/tunnel/devices/{client}", `{"organisationId":{organisation}}`),
	"updateDevice, tunnel server":       answered("PATCH", "/api/tunnel/devices/{server}", `{"organisationId":{organisation}}`),
	"drainDevice":                       answered("POST", "/api/tunnel/devices/{server}/drain", `{}`),
	"createDevice":                      decided(true, "POST", "/api/tunnel/devices", `{"name":"home"}`),
	"createDevice, admins approve":      decided(false, "POST", "/api/tunnel/devices", `{"name":"home"}`),
	"createDevice, tunnel server":       decided(true, "POST", "/api/tunnel/devices", `{"name":"edge","kind":"server","server":{"publicHost":"192.0.2.1"}}`),
	"createDevice, organisation":        decided(true, "POST", "/api/tunnel/devices", `{"name":"home","organisationId":{organisation}}`),
	"createDevice, another user":        decided(true, "POST", "/api/tunnel/devices", `{"name":"home","ownerId":{user}}`),
	"deleteDevice":                      answered("DELETE", "/api/tunnel/devices/{device}/delete", ""),
	"regenerateDeviceToken":             answered("POST", "/api/tunnel/devices/{device}/regenerate-token", ""),
	"startEnrollment":                   answered("POST", "/api/tunnel/device/start", `{"name":"home"}`),
	"startEnrollment, tunnel server":    answered("POST", "/api/tunnel/device/start", `{"name":"edge","kind":"server"}`),
	"startEnrollment, organisation":     answered("POST", "/api/tunnel/device/start", `{"name":"home","organisationId":{organisation}}`),
	"pollEnrollment":                    answered("GET", "/api/tunnel/device/poll?deviceCode={deviceCode}", ""),
	"getPendingDevice":                  decided(true, "GET", "/api/tunnel/device/pending?userCode={userCode}", ""),
	"getPendingDevice, admins approve":  decided(false, "GET", "/api/tunnel/device/pending?userCode={userCode}", ""),
	"getPendingDevice, tunnel server":   decided(true, "GET", "/api/tunnel/device/pending?userCode={serverCode}", ""),
	"getPendingDevice, no owner":        decided(true, "GET", "/api/tunnel/device/pending?userCode={unownedCode}", ""),
	"approveDevice":                     decided(true, "POST", "/api/tunnel/device/approve", `{"userCode":"{userCode}"}`),
	"approveDevice, admins approve":     decided(false, "POST", "/api/tunnel/device/approve", `{"userCode":"{userCode}"}`),
	"approveDevice, tunnel server":      decided(true, "POST", "/api/tunnel/device/approve", `{"userCode":"{serverCode}"}`),
	"approveDevice, no owner":           decided(true, "POST", "/api/tunnel/device/approve", `{"userCode":"{unownedCode}"}`),
	"approveDevice, organisation":       decided(true, "POST", "/api/tunnel/device/approve", `{"userCode":"{unownedCode}","organisationId":{organisation}}`),
	"approveDevice, another user":       decided(true, "POST", "/api/tunnel/device/approve", `{"userCode":"{unownedCode}","ownerId":{user}}`),
	"denyDevice":                        decided(true, "POST", "/api/tunnel/device/deny", `{"userCode":"{userCode}"}`),
	"denyDevice, admins approve":        decided(false, "POST", "/api/tunnel/device/deny", `{"userCode":"{userCode}"}`),
	"denyDevice, tunnel server":         decided(true, "POST", "/api/tunnel/device/deny", `{"userCode":"{serverCode}"}`),
	"denyDevice, no owner":              decided(true, "POST", "/api/tunnel/device/deny", `{"userCode":"{unownedCode}"}`),
	"connectControlChannel":             answered("GET", "/api/tunnel/ws", ""),
	"login":                             logIn,
	"logout":                            answered("POST", "/api/auth/logout", ""),
	"getSession":                        answered("GET", "/api/auth/session", ""),
	"startDeviceLogin":                  answered("POST", "/api/auth/device", `{"client":"eclitunnel","scopes":["read"]}`),
	"pollDeviceLogin":                   answered("POST", "/api/auth/device/token", `{"deviceCode":"{loginDeviceCode}"}`),
	"getPendingLogin":                   answered("GET", "/api/auth/device?userCode={loginCode}", ""),
	"approveDeviceLogin":                answered("POST", "/api/auth/device/approve", `{"userCode":"{loginCode}","scopes":["read"]}`),
	"approveDeviceLogin, scope admin":   answered("POST", "/api/auth/device/approve", `{"userCode":"{loginCode}","scopes":["admin"]}`),
	"denyDeviceLogin":                   answered("POST", "/api/auth/device/deny", `{"userCode":"{loginCode}"}`),
	"revokeDeviceLogin":                 answered("POST", "/api/auth/device/revoke", `{"key":"unknown"}`),
	"setPassword":                       answered("POST", "/api/auth/set-password", `{"token":"{link}","password":"`+password+`"}`),
	"getAccount":                        answered("GET", "/api/account", ""),
	"updateAccount":                     answeredWithPassword("PATCH", "/api/account", `{"email":"{email}","currentPassword":"`+password+`"}`),
	"changePassword":                    answeredWithPassword("POST", "/api/account/password", `{"currentPassword":"`+password+`","newPassword":"`+password+`"}`),
	"getAccountQuota":                   answered("GET", "/api/account/quota", ""),
	"listAccountSessions":               answered("GET", "/api/account/sessions?limit=1", ""),
	"endOtherSessions":                  answered("DELETE", "/api/account/sessions", ""),
	"endAccountSession":                 endSession,
	"listLoginProviders":                answered("GET", "/api/auth/providers", ""),
	"beginProviderLogin":                answered("GET", "/api/auth/providers/company/login", ""),
	"finishProviderLogin":               answered("GET", "/api/auth/providers/company/callback?error=access_denied&state=none", ""),
	"listUsers":                         answered("GET", "/api/users?limit=1", ""),
	"createUser":                        answered("POST", "/api/users", `{"email":"{email}"}`),
	"getUser":                           answered("GET", "/api/users/{user}", ""),
	"updateUser":                        answered("PATCH", "/api/users/{user}", `{"suspended":true}`),
	"updateUser, email of an account":   answered("PATCH", "/api/users/{user}", `{"email":"{email}"}`),
	"deleteUser":                        answered("DELETE", "/api/users/{user}?devices=delete", ""),
	"getUserQuota":                      answered("GET", "/api/users/{user}/quota", ""),
	"updateUserQuota":                   answered("PATCH", "/api/users/{user}/quota", `{"devices":7}`),
	"createPasswordLink":                answered("POST", "/api/users/{user}/password-link", ""),
	"listAPIKeys":                       answered("GET", "/api/keys?{keys}", ""),
	"createAPIKey":                      answered("POST", "/api/keys", `{"name":"backup","scopes":["read"]}`),
	"createAPIKey, organisation":        answered("POST", "/api/keys", `{"name":"backup","scopes":["read"],"organisationId":{organisation}}`),
	"createAPIKey, scope admin":         answered("POST", "/api/keys", `{"name":"backup","scopes":["admin"]}`),
	"getAPIKey":                         answered("GET", "/api/keys/{key}", ""),
	"updateAPIKey":                      answered("PATCH", "/api/keys/{key}", `{"name":"target"}`),
	"deleteAPIKey":                      answered("DELETE", "/api/keys/{key}", ""),
	"listWebhooks":                      answered("GET", "/api/webhooks?{keys}", ""),
	"listWebhooks, whole site":          answered("GET", "/api/webhooks?site=true", ""),
	"createWebhook":                     answered("POST", "/api/webhooks", `{"name":"alerts","url":"https://example.com/","events":["device.offline"]}`),
	"createWebhook, organisation":       answered("POST", "/api/webhooks", `{"name":"alerts","url":"https://example.com/","events":["device.offline"],"organisationId":{organisation}}`),
	"createWebhook, whole site":         answered("POST", "/api/webhooks", `{"name":"alerts","url":"https://example.com/","events":["device.offline"],"site":true}`),
	"getWebhook":                        answered("GET", "/api/webhooks/{webhook}", ""),
	"updateWebhook":                     answered("PATCH", "/api/webhooks/{webhook}", `{"name":"renamed"}`),
	"deleteWebhook":                     answered("DELETE", "/api/webhooks/{webhook}", ""),
	"testWebhook":                       answered("POST", "/api/webhooks/{webhook}/test", ""),
	"rotateWebhookSecret":               answered("POST", "/api/webhooks/{webhook}/rotate-secret", ""),
	"listWebhookDeliveries":             answered("GET", "/api/webhooks/{webhook}/deliveries", ""),
	"redeliverWebhook":                  answered("POST", "/api/webhooks/{webhook}/deliveries/{delivery}/redeliver", ""),
	"getSettings":                       answered("GET", "/api/admin/settings", ""),
	"listSigningKeys":                   answered("GET", "/api/admin/signing-keys", ""),
	"listTunnelServerLoads":             answered("GET", "/api/admin/tunnel-servers/load", ""),
	"updateSettings":                    answered("PATCH", "/api/admin/settings", `{"features":{"tunnels":true}}`),
	"getOrganisationRules":              answered("GET", "/api/organisations/{organisation}/rules", ""),
	"updateOrganisationRules":           answered("PATCH", "/api/organisations/{organisation}/rules", `{"maxPlayers":40}`),
	"getOrganisationQuota":              answered("GET", "/api/organisations/{organisation}/quota", ""),
	"updateOrganisationQuota":           answered("PATCH", "/api/organisations/{organisation}/quota", `{"devices":1000000}`),
	"listOrganisations":                 listed("/api/organisations", "{organisation}"),
	"createOrganisation":                creators("everyone", `{"name":"guild"}`),
	"createOrganisation, by admins":     creators("admins", `{"name":"guild"}`),
	"createOrganisation, another owner": creators("everyone", `{"name":"guild","ownerId":{user}}`),
	"getOrganisation":                   answered("GET", "/api/organisations/{organisation}", ""),
	"updateOrganisation":                answered("PATCH", "/api/organisations/{organisation}", `{"name":"clan"}`),
	"deleteOrganisation":                answered("DELETE", "/api/organisations/{disposable}", ""),
	"listMembers":                       answered("GET", "/api/organisations/{organisation}/members", ""),
	"getMember":                         answered("GET", "/api/organisations/{organisation}/members/{member}", ""),
	"updateMember":                      answered("PATCH", "/api/organisations/{organisation}/members/{member}", `{"role":"admin"}`),
	"updateMember, another owner":       answered("PATCH", "/api/organisations/{organisation}/members/{coOwner}", `{"role":"member"}`),
	"removeMember":                      answered("DELETE", "/api/organisations/{organisation}/members/{member}", ""),
	"removeMember, another owner":       answered("DELETE", "/api/organisations/{organisation}/members/{coOwner}", ""),
	"removeMember, oneself":             leave,
	"listInvitations":                   answered("GET", "/api/organisations/{organisation}/invitations", ""),
	"createInvitation":                  answered("POST", "/api/organisations/{organisation}/invitations", `{"role":"admin"}`),
	"createInvitation, another owner":   answered("POST", "/api/organisations/{organisation}/invitations", `{"role":"owner"}`),
	"revokeInvitation":                  answered("DELETE", "/api/organisations/{organisation}/invitations/{invitation}", ""),
	"revokeInvitation, another owner":   answered("DELETE", "/api/organisations/{organisation}/invitations/{ownerInvitation}", ""),
	"lookUpInvitation":                  answered("POST", "/api/invitations/look-up", `{"token":"{invitationToken}"}`),
	"acceptInvitation":                  answered("POST", "/api/invitations/accept", `{"token":"{invitationToken}"}`),
	"listAudit":                         answered("GET", "/api/audit", ""),
	"listAudit, organisation":           answered("GET", "/api/audit?organisationId={organisation}", ""),
	"streamEvents":                      answered("GET", "/api/events", ""),
	"getOpenAPI":                        answered("GET", "/openapi.json", ""),
	"getOpenAPIYAML":                    answered("GET", "/openapi.yaml", ""),
	"getJWKS":                           answered("GET", "/.well-known/jwks.json", ""),
	"getHealth":                         answered("GET", "/healthz", ""),
	"getReadiness":                      answered("GET", "/readyz", ""),
	"getVersion":                        answered("GET", "/api/version", ""),
}

// givePassword sets the password of a user.
func (w *world) givePassword(t *testing.T, user db.User) {
	t.Helper()
	hash, err := passwordHash()
	if err != nil {
		t.Fatal(err)
	}
	w.exec(t, `UPDATE users SET password_hash = $2 WHERE id = $1`, user.ID, hash)
}

// answeredWithPassword is answered by a caller who knows the password.
func answeredWithPassword(method, path, body string) policyRequest {
	send := answered(method, path, body)
	return func(w *world, t *testing.T, c caller, to *target) auth.Answer {
		t.Helper()
		w.givePassword(t, c.user)
		return send(w, t, c, to)
	}
}

// endSession ends another session of the caller.
func endSession(w *world, t *testing.T, c caller, _ *target) auth.Answer {
	t.Helper()
	id := uuid.New()
	if c.user.ID != 0 {
		w.session(t, c.user)
		last, err := w.db.Sessions(t.Context(), c.user.ID, w.Now(), db.Page[db.SessionPosition]{Limit: 1})
		if err != nil || len(last) != 1 {
			t.Fatalf("%+v, %v", last, err)
		}
		id = last[0].ID
	}
	a := c.send(t, "DELETE", "/api/account/sessions/"+id.String(), nil)
	return auth.Answer(a.status)
}

// logIn logs in as a user whom the caller need not be.
func logIn(w *world, t *testing.T, c caller, _ *target) auth.Answer {
	t.Helper()
	w.givePassword(t, w.owner)
	a := c.send(t, "POST", "/api/auth/login", map[string]string{"email": w.owner.Email, "password": password})
	return auth.Answer(a.status)
}
