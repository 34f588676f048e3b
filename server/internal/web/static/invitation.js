import { call, Problem } from './api.js';
import { begin, byId, Page, takeFragment, wholeLink } from './page.js';

// A login at an identity provider comes back without the fragment: this tab keeps the link
// meanwhile.
const kept = 'invitation';
const token = takeFragment() || sessionStorage.getItem(kept);
sessionStorage.removeItem(kept);

const roles = {
  member: ['a member', 'you will see its devices and ports'],
  admin: ['an admin', 'you will manage its devices, ports and members'],
  owner: ['an owner', 'it will be yours, with those who own it already'],
};
const messages = { not_found: 'This invitation was used, was revoked or has expired. Ask whoever sent it for a new one.' };

const page = new Page({
  steps: ['accept', 'done'],
  welcome(user) {
    byId('who').textContent = user.email;
    this.show(byId('accept'), byId('accept').querySelector('button'));
  },
  address: () => location.pathname,
  leave: () => sessionStorage.setItem(kept, token),
});

page.onSubmit('accept', async () => {
  const organisation = await call('POST', '/api/invitations/accept', { token }, messages);
  byId('what').hidden = true;
  byId('done').textContent = `You are ${roles[organisation.role][0]} of ${organisation.name} now. You can close this page.`;
  page.show(byId('done'), byId('done'));
});

await begin(async () => {
  if (!token) throw new Problem('no_token', wholeLink);
  const invitation = await call('POST', '/api/invitations/look-up', { token }, messages);
  byId('organisation').textContent = invitation.organisation;
  [byId('role').textContent, byId('may').textContent] = roles[invitation.role];
  byId('what').hidden = false;
  await page.start();
});
