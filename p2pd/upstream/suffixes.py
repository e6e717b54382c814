"""Names under which strangers have their names: what a public suffix list knows, as far as registries need it.

Data only. The full list has 10,000 entries and changes weekly; a name that is missing here means that two hosts count
as one owner's although they may not be, so what hosts registries, functions or storage for anybody belongs here.
Imports nothing of p2pd.
"""

from __future__ import annotations

# Second levels that country domains use as if they were top levels (co.uk, com.au, ac.jp).
_COUNTRY = """
ac asn biz co com edu firm gen go gob gouv gov govt gv id ind info ltd me mil ne net nhs nic nom or org plc
police res sch web
"""
COUNTRY_SECOND_LEVELS = frozenset(_COUNTRY.split())

# Where a cloud gives names to its customers.
_SHARED = """
amazonaws.com appspot.com azure-api.net azurecontainer.io azurecr.cn azurecr.io azurecr.us azurefd.net
azurewebsites.net b-cdn.net cloudapp.azure.com cloudapp.net cloudfront.net cloudfunctions.net ddns.net deno.dev
digitaloceanspaces.com duckdns.org dyndns.org elasticbeanstalk.com firebaseapp.com fly.dev github.dev github.io
githubpreview.dev gitlab.io googleapis.com googleusercontent.com herokuapp.com linodeobjects.com netlify.app
ngrok-free.app ngrok.app ngrok.dev ngrok.io nip.io no-ip.org on.aws ondigitalocean.app onrender.com pages.dev
pkg.dev quay.build r2.dev railway.app run.app sslip.io surge.sh traefik.me trafficmanager.net vercel.app web.app
windows.net workers.dev xip.io
"""
SHARED_SUFFIXES = frozenset(_SHARED.split())
