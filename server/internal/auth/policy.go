package auth

import (
	"context"
	"errors"
	"net/http"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// Answer is what a caller gets for who it is: the status of a refusal, or one of the
// constants.
type Answer int

// The answers that are no refusal. In the table, every answer has three characters.
const (
	Allowed Answer = http.StatusOK
	// Unlisted is a list without what the caller may not see.
	Unlisted Answer = http.StatusPartialContent

	yes = Allowed
	out = Unlisted
)

// Caller is what a caller is to the device, allocation or organisation that a request is
// about: a column of the table.
type Caller int

// The columns of the table. To a request that is about none of these, every user who is no
// admin is all of Stranger to Owner.
const (
	NoCredential Caller = iota
	EndedSession        // An expired or revoked session, or a revoked device token or API key.
	Stranger            // A user who is none of the following.
	Member              // A member of the organisation that it is or that owns it.
	OrgAdmin            // An admin of that organisation, or an API key of it.
	Owner               // The user who owns it, or an owner of that organisation.
	SiteAdmin           // An admin of the panel.
	OwnClient           // The tunnel client that it is, or of the allocation.
	OwnServer           // The tunnel server that it is, or of the allocation.
	OtherDevice         // A device of either kind that is none of these.
	Callers             // The number of columns.
)

// The cases of operations: what a request can ask for that not everybody gets who may
// use the operation.
const (
	PortBelow1024    = "port below 1024"
	PortOutsideRange = "outside range" // The quota permits none to the owner.
	CordonedServer   = "cordoned server"
	ServerSettings   = "server settings"
	TunnelServer     = "tunnel server"
	Organisation     = "organisation"
	ByAdmins         = "by admins" // The setting says that only admins create organisations.
	AnotherOwner     = "another owner"
	Oneself          = "oneself"
	AdminsApprove    = "admins approve"
	Unowned          = "no owner"
	AnotherUser      = "another user"
	AccountEmail     = "email of an account"
	AdminKey         = "scope admin"
	WholeSite        = "whole site"
)

// Cases are all of them.
var Cases = []string{
	PortBelow1024, PortOutsideRange, CordonedServer, ServerSettings, TunnelServer, Organisation, ByAdmins, AnotherOwner, Oneself,
	AdminsApprove, Unowned, AnotherUser, AccountEmail, AdminKey, WholeSite,
}

// row is a row of the table: an answer for each column, and the scopes of which an API key
// needs one.
type row struct {
	noCredential, endedSession, stranger, member, orgAdmin, owner, siteAdmin, ownClient, ownServer, otherDevice Answer

	scopes Scopes
}

// policy is the table of who may do what: a row for every operation of the contract, and
// for its cases. An operation without a row cannot be served. A test sends every row to a
// panel as every caller, and holds the contract to the table.
//
// Answers that are the same whatever the request is about are given before its body is
// read; handlers ask [Principal.May] about cases. What is somebody's own is decided by a
// [db.Scope] within the handler's query, for which anything else does not exist.
//
// An API key is the column of its owner, as long as it has one of the scopes at the end of
// the row. Without the scope admin, an admin's key is that of a user.
var policy = map[string]row{
	//                                   no    ended  other  mem-  org.   owner  site   own     own     other    an API key
	//                                   cred. sess.  user   ber   admin         admin  client  server  device   needs one of
	"listAllocations":                   {401, 401, out, yes, yes, yes, yes, yes, out, out, read | allocations},
	"createAllocation":                  {401, 401, 404, 403, yes, yes, yes, yes, 404, 404, allocations},
	"createAllocation, port below 1024": {401, 401, 404, 403, 403, 403, yes, 403, 404, 404, allocations},
	"createAllocation, outside range":   {401, 401, 404, 403, 409, 409, yes, 409, 404, 404, allocations},
	"createAllocation, cordoned server": {401, 401, 404, 403, 409, 409, yes, 409, 404, 404, allocations},
	"getAllocation":                     {401, 401, 404, yes, yes, yes, yes, yes, 404, 404, read | allocations},
	"updateAllocation":                  {401, 401, 404, 403, yes, yes, yes, yes, 404, 404, allocations},
	"updateAllocation, port below 1024": {401, 401, 404, 403, 403, 403, yes, 403, 404, 404, allocations},
	"updateAllocation, outside range":   {401, 401, 404, 403, 409, 409, yes, 409, 404, 404, allocations},
	"updateAllocation, cordoned server": {401, 401, 404, 403, 409, 409, yes, 409, 404, 404, allocations},
	"deleteAllocation":                  {401, 401, 404, 403, yes, yes, yes, yes, 404, 404, allocations},
	"checkAllocation":                   {401, 401, 404, 403, yes, yes, yes, yes, 404, 404, allocations},
	"getUsage":                          {401, 401, yes, yes, yes, yes, yes, yes, yes, yes, read | allocations},
	"listKeptOut":                       {401, 401, 404, yes, yes, yes, yes, yes, 404, 404, read | allocations},
	"readmitSource":                     {401, 401, 404, 403, yes, yes, yes, yes, 404, 404, allocations},
	"listConnections":                   {401, 401, out, yes, yes, yes, yes, yes, out, out, read | allocations},
	"getConnection":                     {401, 401, 404, yes, yes, yes, yes, yes, 404, 404, read | allocations},
	"closeConnection":                   {401, 401, 404, 403, yes, yes, yes, yes, 404, 404, allocations},
	"bulkAllocations":                   {401, 401, out, out, yes, yes, yes, yes, out, out, allocations},
	"listDevices":                       {401, 401, out, yes, yes, yes, yes, 403, 403, 403, read | devices},
	"getDevice":                         {401, 401, 404, yes, yes, yes, yes, yes, yes, 404, read | devices},
	"updateDevice":                      {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, devices},
	"updateDevice, server settings":     {401, 401, 404, 403, 403, 403, yes, 403, 403, 403, devices},
	"updateDevice, oneself":             {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, devices},
	"updateDevice, another owner":       {401, 401, 404, 403, 403, 403, yes, 403, 403, 403, devices},
	"updateDevice, organisation":        {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, devices},
	"updateDevice, tunnel server":       {401, 401, 404, 403, 403, 403, yes, 403, 403, 403, devices},
	"drainDevice":                       {401, 401, 404, 403, 403, 403, yes, 403, 403, 403, devices},
	"createDevice":                      {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, enrollment},
	"createDevice, admins approve":      {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, enrollment},
	"createDevice, tunnel server":       {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, enrollment},
	"createDevice, organisation":        {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, enrollment},
	"createDevice, another user":        {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, enrollment},
	"deleteDevice":                      {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, devices},
	"regenerateDeviceToken":             {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, enrollment},
	"startEnrollment":                   {yes, 401, yes, yes, yes, yes, yes, 403, 403, 403, enrollment},
	"startEnrollment, tunnel server":    {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, enrollment},
	"startEnrollment, organisation":     {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, enrollment},
	"pollEnrollment":                    {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes, anyone},
	"getPendingDevice":                  {401, 401, 404, 404, yes, yes, yes, 403, 403, 403, enrollment},
	"getPendingDevice, admins approve":  {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, enrollment},
	"getPendingDevice, tunnel server":   {401, 401, 404, 404, 404, 404, yes, 403, 403, 403, enrollment},
	"getPendingDevice, no owner":        {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, enrollment},
	"approveDevice":                     {401, 401, 404, 404, yes, yes, yes, 403, 403, 403, enrollment},
	"approveDevice, admins approve":     {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, enrollment},
	"approveDevice, tunnel server":      {401, 401, 404, 404, 403, 403, yes, 403, 403, 403, enrollment},
	"approveDevice, no owner":           {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, enrollment},
	"approveDevice, organisation":       {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, enrollment},
	"approveDevice, another user":       {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, enrollment},
	"denyDevice":                        {401, 401, 404, 404, yes, yes, yes, 403, 403, 403, enrollment},
	"denyDevice, admins approve":        {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, enrollment},
	"denyDevice, tunnel server":         {401, 401, 404, 404, 403, 403, yes, 403, 403, 403, enrollment},
	"denyDevice, no owner":              {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, enrollment},
	"connectControlChannel":             {401, 401, 403, 403, 403, 403, 403, yes, yes, yes, agents},
	"login":                             {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes, anyone},
	"logout":                            {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, people},
	"getSession":                        {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, people},
	"startDeviceLogin":                  {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes, anyone},
	"pollDeviceLogin":                   {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes, anyone},
	"getPendingLogin":                   {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, people},
	"approveDeviceLogin":                {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, people},
	"approveDeviceLogin, scope admin":   {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, people},
	"denyDeviceLogin":                   {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, people},
	"revokeDeviceLogin":                 {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes, anyone},
	"setPassword":                       {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes, anyone},
	"listLoginProviders":                {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes, anyone},
	"beginProviderLogin":                {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes, anyone},
	"finishProviderLogin":               {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes, anyone},
	"getAccount":                        {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, people},
	"updateAccount":                     {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, people},
	"changePassword":                    {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, people},
	"getAccountQuota":                   {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, people},
	"listAccountSessions":               {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, people},
	"endOtherSessions":                  {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, people},
	"endAccountSession":                 {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, people},
	"listUsers":                         {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, admin},
	"createUser":                        {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, admin},
	"getUser":                           {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, admin},
	"updateUser":                        {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, admin},
	"updateUser, email of an account":   {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, people},
	"deleteUser":                        {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, admin},
	"getUserQuota":                      {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, admin},
	"updateUserQuota":                   {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, admin},
	"createPasswordLink":                {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, people},
	"listAPIKeys":                       {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, people},
	"createAPIKey":                      {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, people},
	"createAPIKey, organisation":        {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, people},
	"createAPIKey, scope admin":         {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, people},
	"getAPIKey":                         {401, 401, 404, 404, yes, yes, yes, 403, 403, 403, people},
	"updateAPIKey":                      {401, 401, 404, 404, yes, yes, yes, 403, 403, 403, people},
	"deleteAPIKey":                      {401, 401, 404, 404, yes, yes, yes, 403, 403, 403, people},
	"listWebhooks":                      {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, people},
	"listWebhooks, whole site":          {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, people},
	"createWebhook":                     {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, people},
	"createWebhook, organisation":       {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, people},
	"createWebhook, whole site":         {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, people},
	"getWebhook":                        {401, 401, 404, 404, yes, yes, yes, 403, 403, 403, people},
	"updateWebhook":                     {401, 401, 404, 404, yes, yes, yes, 403, 403, 403, people},
	"deleteWebhook":                     {401, 401, 404, 404, yes, yes, yes, 403, 403, 403, people},
	"testWebhook":                       {401, 401, 404, 404, yes, yes, yes, 403, 403, 403, people},
	"rotateWebhookSecret":               {401, 401, 404, 404, yes, yes, yes, 403, 403, 403, people},
	"listWebhookDeliveries":             {401, 401, 404, 404, yes, yes, yes, 403, 403, 403, people},
	"redeliverWebhook":                  {401, 401, 404, 404, yes, yes, yes, 403, 403, 403, people},
	"getSettings":                       {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, admin},
	"listSigningKeys":                   {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, admin},
	"listTunnelServerLoads":             {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, admin},
	"updateSettings":                    {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, admin},
	"getOrganisationRules":              {401, 401, 404, yes, yes, yes, yes, 403, 403, 403, read | allocations},
	"updateOrganisationRules":           {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, allocations},
	"getOrganisationQuota":              {401, 401, 404, yes, yes, yes, yes, 403, 403, 403, read},
	"updateOrganisationQuota":           {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, admin},
	"listAudit":                         {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, read},
	"listAudit, organisation":           {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, read},
	"listOrganisations":                 {401, 401, out, yes, yes, yes, yes, 403, 403, 403, read},
	"createOrganisation":                {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, people},
	"createOrganisation, by admins":     {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, people},
	"createOrganisation, another owner": {401, 401, 403, 403, 403, 403, yes, 403, 403, 403, people},
	"getOrganisation":                   {401, 401, 404, yes, yes, yes, yes, 403, 403, 403, read},
	"updateOrganisation":                {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, people},
	"deleteOrganisation":                {401, 401, 404, 403, 403, yes, yes, 403, 403, 403, people},
	"listMembers":                       {401, 401, 404, yes, yes, yes, yes, 403, 403, 403, read},
	"getMember":                         {401, 401, 404, yes, yes, yes, yes, 403, 403, 403, read},
	"updateMember":                      {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, people},
	"updateMember, another owner":       {401, 401, 404, 403, 403, yes, yes, 403, 403, 403, people},
	"removeMember":                      {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, people},
	"removeMember, another owner":       {401, 401, 404, 403, 403, yes, yes, 403, 403, 403, people},
	"removeMember, oneself":             {401, 401, 404, yes, yes, yes, yes, 403, 403, 403, people},
	"listInvitations":                   {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, read},
	"createInvitation":                  {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, people},
	"createInvitation, another owner":   {401, 401, 404, 403, 403, yes, yes, 403, 403, 403, people},
	"revokeInvitation":                  {401, 401, 404, 403, yes, yes, yes, 403, 403, 403, people},
	"revokeInvitation, another owner":   {401, 401, 404, 403, 403, yes, yes, 403, 403, 403, people},
	"lookUpInvitation":                  {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes, anyone},
	"acceptInvitation":                  {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, people},
	"streamEvents":                      {401, 401, yes, yes, yes, yes, yes, 403, 403, 403, read | devices | allocations},
	"getOpenAPI":                        {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes, anyone},
	"getOpenAPIYAML":                    {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes, anyone},
	"getJWKS":                           {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes, anyone},
	"getHealth":                         {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes, anyone},
	"getReadiness":                      {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes, anyone},
	"getVersion":                        {yes, yes, yes, yes, yes, yes, yes, yes, yes, yes, anyone},
}

// Rule are the answers of an operation, or of a case of it.
type Rule [Callers]Answer

// RuleOf returns the row of an operation, by its id in the contract, and of one of its
// cases, which is "" for the operation itself. It reports whether there is one.
func RuleOf(operation, what string) (Rule, bool) {
	r, ok := policy[rowName(operation, what)]
	return Rule{
		r.noCredential, r.endedSession, r.stranger, r.member, r.orgAdmin, r.owner, r.siteAdmin, r.ownClient, r.ownServer, r.otherDevice,
	}, ok
}

// ScopesOf returns the scopes of which an API key needs one for an operation, or a case
// of it.
func ScopesOf(operation, what string) Scopes { return policy[rowName(operation, what)].scopes }

func rowName(operation, what string) string {
	if what == "" {
		return operation
	}
	return operation + ", " + what
}

// Public reports whether the operation ignores credentials: a stale cookie must not keep
// anybody from logging in.
func (r Rule) Public() bool { return r[EndedSession] == Allowed }

// Refuse returns the refusal of a caller that does not depend on what the request is
// about, or nil. The caller's credential is valid, or there is none.
func (r Rule) Refuse(p Principal) error {
	columns := p.columns()
	answer := r[columns[0]]
	for _, c := range columns {
		if r[c] != answer {
			return nil
		}
	}
	switch {
	case answer == http.StatusUnauthorized:
		return problem.Unauthorized("Log in first, or send a token.")
	case answer != http.StatusForbidden:
		return nil
	case p.Kind() == KindDevice:
		return problem.Forbidden("This operation does not accept a device token.")
	case r[SiteAdmin] == Allowed && p.Key != nil:
		return problem.Forbidden("Only an API key of an admin, with the scope admin, can do this.")
	case r[SiteAdmin] == Allowed:
		return problem.Forbidden("Only an admin can do this.")
	default:
		return problem.Forbidden("This operation needs a device token.")
	}
}

// May reports whether the caller may use an operation, or a case of it, for what is its
// own.
func (p Principal) May(operation, what string) bool {
	rule, _ := RuleOf(operation, what)
	return rule[p.columns()[0]] == Allowed && ScopesOf(operation, what).Refuse(p) == nil
}

// columns returns the columns that the caller can be, that of its own first.
func (p Principal) columns() []Caller {
	switch {
	case p.Device != nil && p.Device.Kind == db.KindServer:
		return []Caller{OwnServer, OtherDevice}
	case p.Device != nil:
		return []Caller{OwnClient, OtherDevice}
	case p.IsAdmin():
		return []Caller{SiteAdmin}
	case p.User != nil:
		return []Caller{Owner, OrgAdmin, Member, Stranger}
	case p.Key != nil:
		return []Caller{OrgAdmin, Stranger} // An organisation's.
	default:
		return []Caller{NoCredential}
	}
}

// MemberAs returns the column of a user with a role in an organisation, "" for none.
func MemberAs(role string) Caller {
	switch role {
	case "owner":
		return Owner
	case "admin":
		return OrgAdmin
	case "member":
		return Member
	default:
		return Stranger
	}
}

// Roles has the members of organisations.
type Roles interface {
	// OrganisationRole returns the role of a user in an organisation, or db.ErrNotFound.
	OrganisationRole(ctx context.Context, organisationID, userID int64) (string, error)
}

// In returns the column of the caller, who is no admin of the panel and no device, for an
// organisation.
func (p Principal) In(ctx context.Context, roles Roles, organisationID int64) (Caller, error) {
	userID, own := p.Owner()
	switch {
	case own != nil && *own == organisationID:
		return OrgAdmin, nil
	case userID == nil:
		return Stranger, nil
	}
	role, err := roles.OrganisationRole(ctx, organisationID, *userID)
	if err != nil && !errors.Is(err, db.ErrNotFound) {
		return Stranger, err
	}
	return MemberAs(role), nil
}
