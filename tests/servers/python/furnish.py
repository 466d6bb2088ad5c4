"""Furnishes a fresh moto server as an AWS account with something worth protecting, prints the
access keys, and turns signatures and IAM policies on. Nothing is checked before that."""

import json
import os
import urllib.request

import boto3

ENDPOINT = os.environ["AWS_ENDPOINT_URL"]
ACCOUNT = "123456789012"
ANYBODY = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "eu-central-1"}


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def user(name, *actions):
    """A user who may do nothing but this, and its access key."""
    iam.create_user(UserName=name)
    allowed = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    iam.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=document(allowed))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    print(name, key["AccessKeyId"], key["SecretAccessKey"])


def role(name, trusted):
    """A role that may read the reports and that `trusted` may assume."""
    trust = {"Effect": "Allow", "Principal": {"AWS": trusted}, "Action": "sts:AssumeRole"}
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=document(trust))
    bucket = "arn:aws:s3:::reports"
    allowed = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"],
               "Resource": [bucket, f"{bucket}/*"]}
    iam.put_role_policy(RoleName=name, PolicyName="read", PolicyDocument=document(allowed))


iam = boto3.client("iam", **ANYBODY)
user("claviger", "sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity", "iam:ListAccessKeys",
     "iam:GetAccessKeyLastUsed", "iam:CreateAccessKey", "iam:DeleteAccessKey")
user("operator", "iam:*")
user("double", "sts:AssumeRoleWithWebIdentity")
role("reports", f"arn:aws:iam::{ACCOUNT}:user/claviger")
role("payroll", f"arn:aws:iam::{ACCOUNT}:user/somebody-else")

s3 = boto3.client("s3", **ANYBODY)
s3.create_bucket(Bucket="reports",
                 CreateBucketConfiguration={"LocationConstraint": ANYBODY["region_name"]})
s3.put_object(Bucket="reports", Key="2026-q3.csv", Body=b"region,total\nnorth,42\n")

# From here on the server checks every request, from the first one.
checked = urllib.request.Request(f"{ENDPOINT}/moto-api/reset-auth", data=b"0",
                                 headers={"Content-Type": "text/plain"})
urllib.request.urlopen(checked).read()
